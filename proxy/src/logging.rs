//! The operational log: one event a line, as JSON in the shape that etcd's logs have (`level`, `ts`, `caller`, `msg`,
//! then the event's own fields) or as text for people. Lines are handed to a thread that writes them, and none is
//! dropped: when an output cannot keep up, callers wait.

mod rotate;

use std::{
    fmt::{self, Write as _},
    fs::OpenOptions,
    io,
    path::PathBuf,
};

use tracing::{Event, Level, Metadata, Subscriber, field::Visit};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer, Registry,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use self::rotate::RotatingFile;
use crate::config::{Log, LogFormat, LogLevel, LogOutput};

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot open the log file `{path}`: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("the process has a log already")]
    AlreadyStarted,
}

/// Keeps the writing threads alive. Dropping it writes out what is still queued, so it is held to the end of `main`.
#[must_use]
#[derive(Debug)]
pub struct LogGuard {
    _workers: Vec<WorkerGuard>,
}

/// Starts the process's one log.
pub fn init(log: &Log) -> Result<LogGuard, LogError> {
    let mut workers = Vec::new();
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    for output in &log.outputs {
        let (writer, worker) = match output {
            LogOutput::Stderr => queue(io::stderr()),
            LogOutput::Stdout => queue(io::stdout()),
            LogOutput::File(path) => {
                let failed = |source| LogError::Open { path: path.clone(), source };
                match log.rotation {
                    Some(rotation) => queue(RotatingFile::open(path, rotation).map_err(failed)?),
                    None => queue(OpenOptions::new().create(true).append(true).open(path).map_err(failed)?),
                }
            }
        };
        workers.push(worker);
        layers.push(layer(log.format, log.level, writer));
    }
    tracing_subscriber::registry().with(layers).try_init().map_err(|_| LogError::AlreadyStarted)?;
    Ok(LogGuard { _workers: workers })
}

fn queue(writer: impl io::Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().lossy(false).thread_name("log").finish(writer)
}

fn layer(format: LogFormat, level: LogLevel, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let wanted = tracing_subscriber::filter::filter_fn(move |metadata| is_wanted(level, metadata));
    match format {
        LogFormat::Json => layer.event_format(JsonLine).with_filter(wanted).boxed(),
        LogFormat::Console => layer.event_format(ConsoleLine).with_filter(wanted).boxed(),
    }
}

/// Libraries log every frame and page at `debug`, and among it what must not be in a log; theirs end at `info`.
fn is_wanted(level: LogLevel, metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().starts_with("keygate");
    let most = match level {
        LogLevel::Debug if ours => Level::DEBUG,
        LogLevel::Debug | LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
        LogLevel::Error => Level::ERROR,
    };
    *metadata.level() <= most
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// `{"level":"info","ts":"…Z","caller":"config/mod.rs:12","msg":"…","field":…}`
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        write!(out, "{{\"level\":\"{}\",\"ts\":\"", level_name(*metadata.level()))?;
        SystemTime.format_time(&mut out)?;
        write!(out, "\",\"caller\":{},\"msg\":{}", json(&caller(metadata)), json(&fields.message))?;
        for (name, value) in &fields.others {
            write!(out, ",{}:{value}", json(name))?;
        }
        writeln!(out, "}}")
    }
}

/// `2026-… info  message  field=value`
struct ConsoleLine;

impl<S, N> FormatEvent<S, N> for ConsoleLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        SystemTime.format_time(&mut out)?;
        // Escaped as in JSON where need be, so that no value can begin a line of its own.
        let message = json(&fields.message);
        let message = message.trim_matches('"').replace("\\\"", "\"");
        write!(out, "\t{}\t{}\t{message}", level_name(*event.metadata().level()), caller(event.metadata()))?;
        for (name, value) in &fields.others {
            write!(out, "\t{name}={value}")?;
        }
        writeln!(out)
    }
}

/// The last two parts of the path and the line, as in Go's logs; the target where the source is not known.
fn caller(metadata: &Metadata<'_>) -> String {
    match (metadata.file(), metadata.line()) {
        (Some(file), Some(line)) => {
            let mut parts = file.rsplitn(3, '/');
            let name = parts.next().unwrap_or(file);
            match parts.next() {
                Some(directory) => format!("{directory}/{name}:{line}"),
                None => format!("{name}:{line}"),
            }
        }
        _ => metadata.target().to_owned(),
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An event's message and its other fields, these already in JSON.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    fn put(&mut self, field: &tracing::field::Field, value: String) {
        // Events of the crate `log` come with fields about their place, which `caller` tells already.
        if !field.name().starts_with("log.") {
            self.others.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message.clear();
            let _ = write!(self.message, "{value:?}");
        } else {
            self.put(field, json(&format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.put(field, json(value));
        }
    }

    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        self.put(field, value.to_string());
    }

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        self.put(field, value.to_string());
    }

    fn record_bool(&mut self, field: &tracing::field::Field, value: bool) {
        self.put(field, value.to_string());
    }

    fn record_f64(&mut self, field: &tracing::field::Field, value: f64) {
        self.put(field, serde_json::Value::from(value).to_string());
    }
}

#[cfg(test)]
mod tests;
