//! The live form: the terminal is taken over, drawn anew at each look, and given back as it was.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::snapshot::{Sample, Snapshot, Source};
use super::{View, Wanted, said, table};

/// Another screen, so that what stood there comes back; no cursor.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l";
const END: &str = "\x1b[?25h\x1b[?1049l";

/// Until `q`, Ctrl-C or SIGTERM.
pub(super) async fn live(
    mut source: Source,
    mut last: Sample,
    interval: Duration,
    mut wanted: Wanted,
) -> anyhow::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut resized = signal(SignalKind::window_change()).context("cannot listen for a new size")?;
    let mut terminal = Terminal::take()?;
    let mut keys = keys();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut shown: Option<Snapshot> = None;
    let mut trouble = None;
    loop {
        terminal.draw(shown.as_ref(), trouble.as_deref(), wanted)?;
        tokio::select! {
            _ = interrupted.recv() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            _ = resized.recv() => {}
            Some(key) = keys.recv() => match key {
                b'q' | b'Q' => return Ok(()),
                b'u' => wanted.view = View::Users,
                b't' => wanted.view = View::Tenants,
                b's' => {
                    wanted.sort_by_the_next();
                    if let Some(snapshot) = &mut shown {
                        snapshot.order(wanted);
                    }
                }
                _ => {}
            },
            _ = ticks.tick() => match source.look().await {
                Ok(now) => {
                    shown = Some(Snapshot::between(&last, &now, wanted));
                    last = now;
                    trouble = None;
                }
                // The server may come back; what was seen last stays on the screen.
                Err(status) => trouble = Some(format!("{:#}", said(status))),
            },
        }
    }
}

/// Closed when standard input is, or is no terminal.
fn keys() -> mpsc::UnboundedReceiver<u8> {
    let (pressed, keys) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut key = [0];
        while std::io::stdin().read(&mut key).is_ok_and(|read| read == 1) && pressed.send(key[0]).is_ok() {}
    });
    keys
}

/// Gives the terminal back when dropped.
struct Terminal {
    /// None: standard input is no terminal, no key is read.
    before: Option<Termios>,
}

impl Terminal {
    fn take() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(before) = &before {
            let mut single = before.clone();
            // Keys come one by one and are not shown; Ctrl-C stays a signal.
            single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            single.special_codes[SpecialCodeIndex::VMIN] = 1;
            single.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(std::io::stdin(), OptionalActions::Now, &single)
                .context("cannot set up the terminal")?;
        }
        let terminal = Self { before };
        write(BEGIN)?;
        Ok(terminal)
    }

    fn draw(
        &mut self,
        shown: Option<&Snapshot>,
        trouble: Option<&str>,
        wanted: Wanted,
    ) -> anyhow::Result<()> {
        // Some know no size and say none.
        let size = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row.max(4), size.ws_col.max(20)));
        write(&frame(shown, trouble, wanted, rows.into(), columns.into()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to be restored.
        let _gone = write(END);
        if let Some(before) = &self.before {
            let _gone = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("the terminal is gone")
}

/// Over what stood there before, without a flicker: each line is cleared behind its end.
fn frame(
    shown: Option<&Snapshot>,
    trouble: Option<&str>,
    wanted: Wanted,
    rows: usize,
    columns: usize,
) -> String {
    let mut lines = vec![match (trouble, shown) {
        (Some(trouble), _) => format!("keygate: {trouble}"),
        (None, Some(snapshot)) => table::line(&snapshot.whole, wanted.sort()),
        (None, None) => "keygate: counting".to_owned(),
    }];
    lines.push(String::new());
    if let Some(snapshot) = shown {
        lines.extend(table::lines(snapshot, wanted, columns));
    }
    lines.truncate(rows - 1);
    lines.resize(rows - 1, String::new());
    // What the first line says last may have no room there.
    lines.push(format!(
        "q quit  s sort  t tenants  u users  ({} by {})",
        wanted.view.name(),
        wanted.sort().name()
    ));
    let lines: Vec<String> = lines
        .iter()
        .map(|line| line.chars().filter(|c| !c.is_control()).take(columns).collect::<String>() + "\x1b[K")
        .collect();
    format!("\x1b[H{}", lines.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::super::Sort;
    use super::super::snapshot::tests::{snapshot, wanted};
    use super::*;

    /// As it stands on the terminal.
    fn seen(frame: &str) -> String {
        let lines = frame.strip_prefix("\x1b[H").unwrap().split("\r\n");
        let lines: Vec<_> = lines.map(|line| line.strip_suffix("\x1b[K").unwrap()).collect();
        lines.join("\n")
    }

    #[test]
    fn a_frame_fits_the_terminal_and_says_what_is_wrong() {
        let wanted = wanted(View::Tenants, Sort::Name);
        let frame = frame(Some(&snapshot(Sort::Name)), Some("gone\x1b[2J away"), wanted, 5, 20);
        let seen = seen(&frame);
        let lines: Vec<_> = seen.lines().collect();
        assert_eq!(lines.len(), 5, "{frame:?}");
        assert_eq!(lines[0], "keygate: gone[2J awa");
        assert!(lines[2].starts_with("TENANT") && lines[3].starts_with("default"), "{frame:?}");
        assert_eq!(lines[4], "q quit  s sort  t te");
        assert!(lines.iter().all(|line| line.chars().count() <= 20), "{frame:?}");
    }

    #[test]
    fn users_are_shown_on_a_usual_terminal() {
        let expected = "\
requests/s 102  refused/s 2.0  processors 0.5  memory -  connections -  watchers
\n\
USER           TENANT         REQ/S  REF/S    IN/S  OUT/S  WATCH  CONN  REQUESTS
alice          pay              200     20  195.3K   2.0K      3     1       600
b\\u{1b}[2Job…  pay               10    1.0    9.8K    100      3     1        30
-              default          0.0    0.0       0      0      3     1         3
who-has-a-lo…  a-tenant-of-…    0.0    0.0       0      0      3     1         2
\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\
q quit  s sort  t tenants  u users  (users by requests)";
        let mut snapshot = snapshot(Sort::Requests);
        let wanted = wanted(View::Users, Sort::Requests);
        let frame = frame(Some(&snapshot), None, wanted, 24, 80);
        println!("{}", seen(&frame));
        assert_eq!(seen(&frame), expected);
        assert_eq!(seen(&frame).lines().count(), 24);
        // Only what moves the cursor home and clears the rest of a line is left of control characters.
        let left = frame.replace("\x1b[H", "").replace("\x1b[K", "").replace("\r\n", "");
        assert!(!left.chars().any(|c| c.is_control() || c == '\u{202e}'), "{left:?}");
        snapshot.users = None;
        assert!(super::frame(Some(&snapshot), None, wanted, 24, 80).contains("is not told to you"));
    }

    #[test]
    fn a_narrow_terminal_shows_who_and_how_much() {
        let expected = "\
requests/s 102  refused/s 2.0  processor
\n\
USER          TENANT   REQ/S  REF/S
alice         pay        200     20
b\\u{1b}[2Jo…  pay         10    1.0
-             default    0.0    0.0
q quit  s sort  t tenants  u users  (use";
        let wanted = Wanted { limit: 3, ..wanted(View::Users, Sort::Requests) };
        let frame = frame(Some(&snapshot(Sort::Requests)), None, wanted, 7, 40);
        println!("{}", seen(&frame));
        assert_eq!(seen(&frame), expected);
    }
}
