"""A video transformer in the studio: its settings and words have fields, and a job of it runs."""

from pathlib import Path

import pytest

from studio_page import LAPTOP, STUDIO, Visit, chromium, needs_browser
from studio_process import StudioProcess
from tiny_dit import tiny_dit

WORDS = {"prompt": "a red ball rolls", "negative_prompt": "blurry"}


@needs_browser
@pytest.mark.long
def test_a_video_transformers_fields_are_there_and_a_job_runs(tmp_path: Path) -> None:
    options = ("--port", "0", "--backbone", str(tiny_dit("a14b")))
    with chromium() as browser, StudioProcess(tmp_path, STUDIO, *options) as studio:
        visit = Visit(browser.new_context(viewport=LAPTOP), studio.url)
        page = visit.page
        visit.photo()
        page.click("#tab-settings")
        page.select_option("#set-controller", "none")
        page.click("#all-settings summary")
        for name, words in WORDS.items():
            page.fill(f"#set-{name}", words)
            page.press(f"#set-{name}", "Tab")
        sizes = {"num_steps": "2", "width": "48", "height": "32", "num_frames": "5"}
        scales = {"guidance_scale": "2.5", "guidance_scale_2": "1.5", "negative_prompt": "static"}
        for group, values in {"sampling": sizes, "settings": scales}.items():
            for name, value in values.items():
                page.fill(f"#set-{group}-{name}", value)
                page.press(f"#set-{group}-{name}", "Tab")
        page.fill("#set-settings-guidance_scale", "101")
        page.press("#set-settings-guidance_scale", "Tab")
        assert "from 0 to 100" in visit.message()
        page.wait_for_selector("#verdict:has-text('Ready: 5 frames of 48×32, 2 steps')")
        page.click("#generate")
        visit.wait("s.jobs[0] && !['queued', 'running'].includes(s.jobs[0].state)")
        (listed,) = visit.state()["jobs"]
        job = studio.get(f"/api/jobs/{listed['id']}")
        assert job["state"] == "done", job["message"]
        assert job["plan"]["settings"] == {"guidance_scale": 2.5, "guidance_scale_2": 1.5, "negative_prompt": "static"}
        assert {name: job["request"]["scene"][name] for name in WORDS} == WORDS
        record = studio.get(job["result"]["run"])["run"]
        assert record["backbone"]["settings"]["guidance_scale_2"] == 1.5 and job["result"]["num_frames"] == 5
        assert visit.errors == [] and visit.outside == []
