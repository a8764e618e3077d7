#!/bin/sh
# Install one role, with its own pinned dependencies and nothing else: install-role.sh ROLE DIRECTORY
# Run from the project's root. The Dockerfile runs it as it is, and so does a test.
set -eu
role=$1
target=$2
case "$role" in
  producers | processors | sinks) ;;
  *)
    echo "expected a role, one of producers, processors, sinks, found '$role'" >&2
    exit 2
    ;;
esac
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
# uv does not read pip's settings by itself.
index=$("$tools/venv/bin/pip" config get global.index-url 2>/dev/null || true)
if [ -n "$index" ]; then
  UV_DEFAULT_INDEX=$index
  export UV_DEFAULT_INDEX
fi
python3 -m venv --without-pip "$target"
"$tools/venv/bin/uv" pip install --quiet --python "$target/bin/python" --require-hashes -r "requirements/$role.txt"
"$tools/venv/bin/uv" pip install --quiet --python "$target/bin/python" --no-deps --no-sources ./contracts "./$role"
"$target/bin/python" -m compileall -q "$target/lib"
