"""The page: a tab each for planning, data, runs, results, comparing, leaderboards and trying."""

import gradio as gr

from slimtune.app import compare_tab, data_tab, leaderboard_tab, plan_tab, results_tab, runs_tab, try_tab
from slimtune.app.guard import guard
from slimtune.app.look import html
from slimtune.app.quick import unserved

_CACHE_S = (86_400, 7 * 86_400)  # Gradio's copies of downloads: looked at daily, kept a week, gone when the app ends


def make_page() -> gr.Blocks:
    """The app, ready to be launched."""
    with unserved(), gr.Blocks(title="slimtune", analytics_enabled=False, delete_cache=_CACHE_S) as page:
        gr.HTML(html("head", {}))
        with gr.Tabs() as tabs:
            with gr.Tab("Plan", id="plan"):
                form, started = plan_tab.build()
            with gr.Tab("Data", id="data") as data:
                data_tab.build(form, data)
            with gr.Tab(runs_tab.LABEL, id="runs") as runs:
                runs_tab.build(tabs, runs, started)
            with gr.Tab("Results", id="results") as results:
                results_tab.build(results)
            with gr.Tab("Compare", id="compare") as compare:
                compare_tab.build(compare)
            with gr.Tab(leaderboard_tab.LABEL, id="leaderboard") as leaderboard:
                leaderboard_tab.build(tabs, leaderboard)
            with gr.Tab("Try it", id="try") as trying:
                try_tab.build(trying)
        started.change(lambda name: gr.Tabs(selected="runs") if name else gr.skip(), started, tabs, api_name=False)
    guard(page)
    return page
