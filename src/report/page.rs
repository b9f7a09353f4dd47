//! The page around the charts: figures, events, settings, style and script.

use super::Run;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The whole page.
pub fn page(run: &Run, name: &str, refresh: Option<u64>) -> String {
    let start = &run.start;
    let refresh = match refresh.filter(|_| run.test.is_none()) {
        Some(seconds) => format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"),
        None => String::new(),
    };
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">{refresh}<title>{0}</title>\
         <style>{STYLE}</style></head><body><h1>MPNet run</h1><p class=\"name\">{0}</p><dl class=\"tiles\">",
        escape(name)
    );
    let mut tiles = vec![
        ("update", format!("{} of {}", run.step, start.total_updates)),
        (
            "parameters",
            format!("{:.1} M", start.parameters as f64 / 1e6),
        ),
    ];
    if let Some(test) = &run.test {
        tiles.push((
            "test loss",
            format!("{:.4} {}", test.loss, test.unit.name()),
        ));
        tiles.push(("test accuracy", format!("{:.4}", test.acc)));
    }
    tiles.push((
        "running since the last start",
        elapsed(run.time - start.time),
    ));
    tiles.push(("starts", run.starts.to_string()));
    tiles.push(("events", run.events.len().to_string()));
    for (label, value) in tiles {
        let _ = write!(
            page,
            "<div><dt>{label}</dt><dd>{}</dd></div>",
            escape(&value)
        );
    }
    page += "</dl>";
    if run.charts.iter().any(|chart| !chart.is_empty()) {
        page += "<button type=\"button\" id=\"all\">All curves as PNG</button>";
    }
    page += "<main>";
    for chart in run.charts.iter().filter(|chart| !chart.is_empty()) {
        page += &chart.figure();
    }
    page += "</main><h2>Events</h2>";
    if run.events.is_empty() {
        page += "<p>None.</p>";
    } else {
        page += "<div class=\"wide\"><table><tr><th>update</th><th>what</th></tr>";
        // The newest first, and no page of millions.
        for event in run.events.iter().rev().take(500) {
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{}</td></tr>",
                event.step,
                escape(&event.text)
            );
        }
        page += "</table></div>";
    }
    page += "<h2>Environment</h2><div class=\"wide\"><table class=\"pairs\">";
    for (label, value) in [
        ("program", format!("mpnet {}", start.version)),
        ("ONNX Runtime", start.onnxruntime.clone()),
        ("execution", start.execution.clone()),
        (
            "system",
            format!("{}, {} processors", start.system, start.processors),
        ),
        ("vocabulary", start.vocabulary.to_string()),
    ] {
        let _ = write!(page, "<tr><th>{label}</th><td>{}</td></tr>", escape(&value));
    }
    page += "</table></div><h2>Configuration</h2><div class=\"wide\"><table class=\"pairs\">";
    settings("", &start.config, &mut page);
    let _ = write!(
        page,
        "</table></div><script>{SCRIPT}</script></body></html>"
    );
    page
}

/// A row for each value, under its path.
fn settings(path: &str, value: &serde_json::Value, page: &mut String) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                settings(&path, value, page);
            }
        }
        serde_json::Value::String(text) => row(path, text, page),
        other => row(path, &other.to_string(), page),
    }
}

fn row(path: &str, value: &str, page: &mut String) {
    let _ = write!(
        page,
        "<tr><th>{}</th><td>{}</td></tr>",
        escape(path),
        escape(value)
    );
}

fn elapsed(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    format!(
        "{}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}
