"""What a person sees of a start where there is no terminal."""

import io

from alpha_pulse.embedded.progress import StartProgress, console_progress


def test_a_download_prints_a_few_lines_however_many_chunks_it_has() -> None:
    stream = io.StringIO()
    with console_progress(stream) as show:
        for done in range(0, 1001):
            show(
                StartProgress(
                    stage="download", message="fetching", done_bytes=done * 1000, total_bytes=10**6
                )
            )
        show(StartProgress(stage="ready", message="up"))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "fetching: 0.0 of 1.0 MB"
    assert lines[-2:] == ["fetching: 1.0 of 1.0 MB", "up"]
    assert len(lines) == 6
