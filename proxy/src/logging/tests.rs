use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use super::*;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `log` writes with the given format and level.
fn logged(format: LogFormat, level: LogLevel, log: impl FnOnce()) -> String {
    let memory = Memory::default();
    let (writer, worker) = queue(memory.clone());
    let subscriber = tracing_subscriber::registry().with(vec![layer(format, level, writer)]);
    tracing::subscriber::with_default(subscriber, log);
    drop(worker);
    let bytes = memory.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_json_line_has_the_shape_of_etcds() {
    let text = logged(LogFormat::Json, LogLevel::Info, || {
        tracing::warn!(address = "127.0.0.1:2379", count = 3, ok = true, "a \"quoted\"\nmessage");
    });
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(line["level"], "warn");
    assert_eq!(line["msg"], "a \"quoted\"\nmessage");
    assert_eq!(line["address"], "127.0.0.1:2379");
    assert_eq!(line["count"], 3);
    assert_eq!(line["ok"], true);
    assert!(line["caller"].as_str().unwrap().starts_with("logging/tests.rs:"), "{line}");
    let ts = line["ts"].as_str().unwrap();
    assert!(ts.ends_with('Z') && ts.len() == "2026-08-20T10:00:00.000000Z".len(), "{ts}");
    assert!(text.starts_with("{\"level\":\"warn\",\"ts\":\""), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_console_line_cannot_be_forged_by_a_value() {
    let text = logged(LogFormat::Console, LogLevel::Info, || {
        tracing::info!(user = "eve\n2026\terror\tforged", "logged in\nforged");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("\tinfo\t"), "{text}");
}

#[test]
fn the_debug_output_of_libraries_is_left_out() {
    let text = logged(LogFormat::Json, LogLevel::Debug, || {
        tracing::debug!(target: "h2::frame", "every frame");
        tracing::info!(target: "h2::frame", "rare");
        tracing::debug!("ours");
    });
    assert!(!text.contains("every frame"));
    assert!(text.contains("rare") && text.contains("ours"));
    let text = logged(LogFormat::Json, LogLevel::Error, || {
        tracing::warn!("too small");
        tracing::error!("shown");
    });
    assert!(!text.contains("too small") && text.contains("shown"));
}
