//! Logs on standard error: for people, for programs (`--log-format json`), and for journald.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, format};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// How log lines are written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        help_heading = "Logging"
    )]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,ocellus::capture=debug [default: info;
    /// warn for the demo]
    #[arg(long, global = true, env = "OCELLUS_LOG", help_heading = "Logging")]
    log: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// One readable line each
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging for the whole process; `level` where nothing else is asked for.
pub(super) fn start(args: &LogArgs, level: &str) {
    let quiet = "rumqttc=warn,tract=warn";
    let wanted = args.log.as_deref().unwrap_or(level);
    let filter =
        |wanted: &str| -> Result<Targets, ParseError> { format!("{quiet},{wanted}").parse() };
    let (filter, refused) = match filter(wanted) {
        Ok(filter) => (filter, None),
        Err(e) => (filter("info").unwrap_or_default(), Some(e)),
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(std::io::stderr);
    // journald adds time and unit itself, and takes the level from an "<n>" at the start of the line.
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match args.log_format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .finish()
            .with(filter)
            .init(),
        LogFormat::Text if to_journal => {
            let lines = builder.with_ansi(false).event_format(Journal).finish();
            lines.with(filter).init();
        }
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let lines = builder.with_ansi(ansi).with_target(false).finish();
            lines.with(filter).init();
        }
    }
    if let Some(e) = refused {
        tracing::warn!("--log {wanted}: {e}; using info");
    }
}

/// `<6>message key=value`, syslog's priorities.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        format()
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .format_event(ctx, writer, event)
    }
}
