# One image for each role, with only its role's dependencies:
#   docker build --build-arg ROLE=producers --tag alpha-pulse-producers .
# ROLE is producers, processors or sinks.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG ROLE
WORKDIR /src
COPY requirements requirements
COPY docker/install-role.sh docker/install-role.sh
COPY contracts contracts
COPY ${ROLE} ${ROLE}
RUN docker/install-role.sh "${ROLE}" /opt/alpha-pulse

FROM python:${PYTHON}-slim
ARG ROLE
COPY --from=build /opt/alpha-pulse /opt/alpha-pulse
# The root file system may be read-only: whatever is written goes to /tmp.
ENV PATH=/opt/alpha-pulse/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ALPHA_PULSE_ROLE=${ROLE} \
    ALPHA_PULSE_DATA_DIR=/tmp/alpha-pulse
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
CMD ["sh", "-c", "exec python -m alpha_pulse.$ALPHA_PULSE_ROLE"]
