//! The event log over days, restarts and broken disks.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use fanfare::clock::Clock;
use fanfare::config::Logs;
use fanfare::event_log::{Data, EventLog, Kind, Loss, State};
use serde_json::{Value, json};
use support::{Dice, Server};

/// 2026-11-23T04:05:06.789Z
const MONDAY: u64 = 1_795_406_706_789;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Without the bounds that these days would not reach.
fn logs_in(dir: &Path, keep_days: u32) -> Logs {
    Logs {
        dir: dir.into(),
        keep_days,
        day_bytes: u64::MAX,
        free_bytes: 0,
        level: "info".into(),
    }
}

fn say(log: &EventLog, message: &str) {
    let data = Data {
        message: Some(message),
        ..Data::default()
    };
    log.record(Kind::Server, &data);
}

/// Waits for what other threads do; a deadline, not a pause.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within ten seconds: {what}");
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn gunzip(path: &Path) -> String {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(fs::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    text
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn days_restarts_and_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("a/logs");
    let clock = Clock::manual(MONDAY);
    let (log, guard) = EventLog::open(&logs_in(&logs, 3), clock.clone()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // The umask of whoever runs the tests may take away more, never add.
    assert_eq!(mode(&logs) & !0o750, 0);
    say(&log, "monday");
    log.record(
        Kind::ChannelSubscribe,
        &Data {
            user_id: Some("u1"),
            ip: Some("::1".parse().unwrap()),
            channel: Some("post_1"),
            ..Data::default()
        },
    );
    drop(guard);
    let monday = logs.join("ws-2026-11-23.log");
    assert_eq!(mode(&monday) & !0o640, 0);
    assert_eq!(
        fs::read_to_string(&monday).unwrap(),
        concat!(
            r#"{"timestamp":"2026-11-23T04:05:06.789Z","type":"server","data":{"message":"monday"}}"#,
            "\n",
            r#"{"timestamp":"2026-11-23T04:05:06.789Z","type":"channel_subscribe","data":{"userId":"u1","ip":"::1","channel":"post_1"}}"#,
            "\n"
        )
    );

    // What a crash, other programs and other people leave behind.
    fs::write(logs.join("ws-2026-11-22.log.gz.tmp"), "half").unwrap();
    fs::write(logs.join("ws-2026-11-22.log"), "{\"n\":1}\n").unwrap();
    fs::write(logs.join("ws-2026-11-20.log"), "old\n").unwrap();
    fs::write(logs.join("ws-2026-11-19.log.gz"), "older").unwrap();
    fs::write(logs.join("ws-2026-12-24.log"), "of a wrong clock\n").unwrap();
    for foreign in ["ws-notes.log", "ws-2026-11-01.log.bak", "nginx.log"] {
        fs::write(logs.join(foreign), "not ours").unwrap();
    }
    fs::create_dir(logs.join("ws-2026-11-02.log")).unwrap();
    // The process was killed in the middle of a line.
    fs::OpenOptions::new()
        .append(true)
        .open(&monday)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"torn"))
        .unwrap();

    let (log, guard) = EventLog::open(&logs_in(&logs, 3), clock.clone()).unwrap();
    say(&log, "monday again");
    let foreign = [
        "nginx.log",
        "ws-2026-11-01.log.bak",
        "ws-2026-11-02.log",
        "ws-2026-12-24.log",
        "ws-notes.log",
    ];
    let expect = |ours: &[&str]| {
        let mut expected: Vec<_> = ours
            .iter()
            .chain(&foreign)
            .map(|name| name.to_string())
            .collect();
        expected.sort();
        eventually(&format!("{expected:?} in {:?}", names(&logs)), || {
            names(&logs) == expected
        });
    };
    expect(&["ws-2026-11-22.log.gz", "ws-2026-11-23.log"]);
    assert_eq!(gunzip(&logs.join("ws-2026-11-22.log.gz")), "{\"n\":1}\n");
    assert_eq!(mode(&logs.join("ws-2026-11-22.log.gz")) & !0o640, 0);

    // Midnight, with a line right before and right after it.
    let until_midnight = Duration::from_millis(86_400_000 - MONDAY % 86_400_000);
    clock.advance(until_midnight - Duration::from_millis(1));
    say(&log, "last of monday");
    clock.advance(Duration::from_millis(1));
    say(&log, "first of tuesday");
    expect(&[
        "ws-2026-11-22.log.gz",
        "ws-2026-11-23.log.gz",
        "ws-2026-11-24.log",
    ]);
    let text = gunzip(&logs.join("ws-2026-11-23.log.gz"));
    let (before, after) = text.split_once("{\"torn\n").unwrap();
    assert_eq!(lines(before).len(), 2);
    let after = lines(after);
    assert_eq!(after[0]["data"]["message"], "monday again");
    assert_eq!(after[1]["data"]["message"], "last of monday");
    assert_eq!(after[1]["timestamp"], "2026-11-23T23:59:59.999Z");
    assert_eq!(after.len(), 2);

    for _ in 0..5 {
        clock.advance(DAY);
        say(&log, "another day");
    }
    expect(&[
        "ws-2026-11-27.log.gz",
        "ws-2026-11-28.log.gz",
        "ws-2026-11-29.log",
    ]);
    drop(guard);
    let today = fs::read_to_string(logs.join("ws-2026-11-29.log")).unwrap();
    assert_eq!(lines(&today).len(), 1);
    let figures = log.figures();
    assert_eq!((figures.dropped_lines(), figures.io_errors), (0, 0));
    assert_eq!(figures.written_lines, 3 + 5);
    assert_eq!(
        fs::read_to_string(logs.join("ws-notes.log")).unwrap(),
        "not ours"
    );
}

#[test]
fn every_line_is_in_the_file_of_its_day_whoever_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let until_midnight = 86_400_000 - MONDAY % 86_400_000;
    let clock = Clock::manual(MONDAY + until_midnight - 1_000);
    let (log, guard) = EventLog::open(&logs_in(dir.path(), 9), clock.clone()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    clock.advance(Duration::from_millis(1));
                    say(&log, "x");
                }
            });
        }
    });
    drop(guard);
    let yesterday = dir.path().join("ws-2026-11-23.log.gz");
    eventually("yesterday is put away", || {
        yesterday.exists() && !dir.path().join("ws-2026-11-23.log").exists()
    });
    let today = fs::read_to_string(dir.path().join("ws-2026-11-24.log")).unwrap();
    let mut count = 0;
    let mut last = String::new();
    for (text, day) in [(gunzip(&yesterday), "2026-11-23"), (today, "2026-11-24")] {
        for line in lines(&text) {
            let timestamp = line["timestamp"].as_str().unwrap().to_string();
            assert!(timestamp.starts_with(day), "{timestamp} in {day}");
            assert!(last <= timestamp, "{last} before {timestamp}");
            last = timestamp;
            count += 1;
        }
    }
    assert_eq!(count, 4_000);
    assert_eq!(log.figures().written_lines, 4_000);
}

#[test]
fn a_file_that_is_moved_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, guard) = EventLog::open(&logs_in(dir.path(), 9), Clock::manual(MONDAY)).unwrap();
    let path = dir.path().join("ws-2026-11-23.log");
    say(&log, "one");
    eventually("the first line", || log.figures().written_lines == 1);
    fs::remove_file(&path).unwrap();
    say(&log, "two");
    drop(guard);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(lines(&text)[0]["data"]["message"], "two");
}

#[test]
fn a_directory_that_cannot_be_used_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(EventLog::open(&logs_in(&file.join("logs"), 9), Clock::manual(MONDAY)).is_err());
    fs::create_dir(dir.path().join("ws-2026-11-23.log")).unwrap();
    assert!(EventLog::open(&logs_in(dir.path(), 9), Clock::manual(MONDAY)).is_err());
}

#[test]
fn losses_are_counted_and_admitted_once_the_disk_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let clock = Clock::manual(MONDAY);
    let (log, guard) = EventLog::open(&logs_in(&logs, 9), clock.clone()).unwrap();
    say(&log, "fine");
    eventually("the first line", || log.figures().written_lines == 1);
    // Root may write anywhere, but nobody opens a file in a directory that is gone.
    let away = dir.path().join("away");
    fs::rename(&logs, &away).unwrap();
    clock.advance(DAY);
    for _ in 0..7 {
        say(&log, "lost");
    }
    eventually("the losses", || log.figures().dropped_lines() == 7);
    assert!(log.figures().io_errors >= 1);
    fs::rename(&away, &logs).unwrap();
    say(&log, "back");
    eventually("the line after", || log.figures().written_lines == 2);
    drop(guard);
    let text = fs::read_to_string(logs.join("ws-2026-11-24.log")).unwrap();
    let messages: Vec<_> = lines(&text)
        .iter()
        .map(|line| line["data"]["message"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(messages, ["back", "dropped 7 lines"]);
}

#[test]
fn a_full_disk_tears_no_line() {
    let Some(disk) = SmallDisk::mount("256k") else {
        return;
    };
    let dir = &disk.0;
    let ballast = dir.path().join("ballast");
    fs::write(&ballast, [0; 128 * 1024]).unwrap();
    let (log, guard) = EventLog::open(&logs_in(dir.path(), 9), Clock::manual(MONDAY)).unwrap();
    let long = "x".repeat(250);
    for _ in 0..2_000 {
        say(&log, &long);
    }
    eventually("every line has its fate", || {
        let figures = log.figures();
        figures.written_lines + figures.dropped_lines() == 2_000
    });
    let full = log.figures();
    assert!(full.dropped_lines() > 0 && full.written_lines > 0 && full.io_errors > 0);

    fs::remove_file(&ballast).unwrap();
    say(&log, "room again");
    drop(guard);
    // A short batch may have found room in between, and admitted what was lost until then.
    let (mut written, mut admitted) = (0, 0);
    let text = fs::read_to_string(dir.path().join("ws-2026-11-23.log")).unwrap();
    for line in lines(&text) {
        let message = line["data"]["message"].as_str().unwrap();
        match message.strip_prefix("dropped ") {
            Some(rest) => admitted += rest.strip_suffix(" lines").unwrap().parse::<u64>().unwrap(),
            None => written += 1,
        }
    }
    assert_eq!(written, full.written_lines + 1);
    assert_eq!(admitted, full.dropped_lines());
    assert!(text.contains("room again"));
}

#[test]
fn a_server_whose_logs_have_no_disk_goes_on_and_says_so() {
    let Some(disk) = SmallDisk::mount("8m") else {
        return;
    };
    let mut server = Server::start(&[
        ("logs.dir", disk.0.path().to_str().unwrap()),
        // Of so small a disk an eighth has to be free: 1 MiB.
        ("logs.free_bytes", "4MiB"),
    ]);
    let log = |server: &Server| server.stats()["server"]["eventLog"].clone();
    let round = |server: &Server, n: u32| {
        let mut client = server.connect("ann");
        client.subscribe("post_1");
        server.publish("post_1", json!({"type": "n", "n": n}));
        assert_eq!(client.next()["n"], n);
        client.close();
    };
    round(&server, 1);
    assert_eq!(log(&server)["state"], "writing");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 7_500_000]).unwrap();
    eventually("it notices", || {
        round(&server, 2);
        log(&server)["state"] == "disk_low"
    });
    // Until nothing is left at all.
    let _ = fs::write(disk.0.path().join("rest"), vec![0; 4 << 20]);
    for n in 3..6 {
        round(&server, n);
    }
    eventually("its losses", || {
        log(&server)["droppedByReason"]["disk_low"].as_u64() > Some(3)
    });
    let complaints = |server: &Server| server.output().matches("less than logs.free_bytes").count();
    assert_eq!(complaints(&server), 1);
    let page = String::from_utf8(server.metrics("/metrics").body).unwrap();
    let wanted = "fanfare_event_log_dropped_lines_total{reason=\"disk_low\"} ";
    let line = page.lines().find(|line| line.starts_with(wanted)).unwrap();
    assert!(!line.ends_with(" 0"), "{line}");

    // A restart does not need the room either.
    let lost_before = log(&server)["droppedLines"].as_u64().unwrap();
    server.terminate();
    server.restart();
    round(&server, 6);
    eventually("it notices again", || log(&server)["state"] == "disk_low");
    fs::remove_file(disk.0.path().join("rest")).unwrap();
    fs::remove_file(&ballast).unwrap();
    eventually("it writes again", || {
        round(&server, 7);
        log(&server)["state"] == "writing"
    });
    assert!(server.output().contains("the disk has room again"));
    let lost = log(&server)["droppedLines"].as_u64().unwrap();
    let admitted = format!("dropped {lost} lines");
    let is_admitted = |line: &Value| line["data"]["message"] == *admitted;
    eventually("it is admitted", || {
        server.event_log().iter().any(is_admitted)
    });
    assert!(lost > 0 && lost_before > 0);
    assert_eq!(complaints(&server), 2);
}

#[test]
fn a_day_has_its_bound_and_a_restart_does_not_lift_it() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs {
        day_bytes: 4_096,
        ..logs_in(dir.path(), 9)
    };
    let path = dir.path().join("ws-2026-11-23.log");
    let clock = Clock::manual(MONDAY);
    let client = |log: &EventLog| log.record(Kind::Connection, &Data::default());
    let settled = |log: &EventLog, lines: u64| {
        eventually("every line has its fate", || {
            let figures = log.figures();
            figures.written_lines + figures.dropped_lines() == lines
        });
    };
    let count = |what: &str| fs::read_to_string(&path).unwrap().matches(what).count();
    let (log, guard) = EventLog::open(&logs, clock.clone()).unwrap();
    for _ in 0..100 {
        client(&log);
    }
    settled(&log, 100);
    let written = log.figures().written_lines;
    assert_eq!(log.figures().lost(Loss::DayFull), 100 - written);
    assert_eq!(log.figures().state, State::DayFull);
    assert_eq!(count("\"connection\""), written as usize);
    assert_eq!(count("logs.day_bytes is reached"), 1);
    assert!(fs::metadata(&path).unwrap().len() < 4_096 + 200);
    // What the server says about itself has a place, and how much is missing is among it.
    say(&log, "stopped");
    settled(&log, 101);
    drop(guard);
    assert_eq!(count("stopped"), 1);
    assert_eq!(count(&format!("dropped {} lines", 100 - written)), 1);

    let (log, guard) = EventLog::open(&logs, clock.clone()).unwrap();
    client(&log);
    settled(&log, 1);
    assert_eq!(log.figures().lost(Loss::DayFull), 1);
    // Who moves it away begins another; a higher bound counts at once, too.
    fs::rename(&path, dir.path().join("moved")).unwrap();
    log.renew(&logs).unwrap();
    client(&log);
    settled(&log, 2);
    assert_eq!(log.figures().state, State::Writing);
    assert_eq!(count("\"connection\""), 1);
    clock.advance(DAY);
    client(&log);
    settled(&log, 3);
    assert_eq!(log.figures().lost(Loss::DayFull), 1);
    drop(guard);
}

#[test]
fn a_file_that_is_moved_away_is_let_go_at_the_word() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs_in(dir.path(), 9);
    let (log, guard) = EventLog::open(&logs, Clock::manual(MONDAY)).unwrap();
    let (path, moved) = (
        dir.path().join("ws-2026-11-23.log"),
        dir.path().join("moved"),
    );
    let mut all = String::new();
    for round in 0..50 {
        for n in 0..20 {
            say(&log, &format!("{round}.{n};"));
        }
        fs::rename(&path, &moved).unwrap();
        log.renew(&logs).unwrap();
        // From here on the moved file is another program's: it would be compressed and deleted.
        eventually("all is written", || {
            log.figures().written_lines == (round + 1) * 20
        });
        all += &fs::read_to_string(&moved).unwrap();
    }
    drop(guard);
    all += &fs::read_to_string(&path).unwrap();
    assert_eq!(lines(&all).len(), 1_000);
    assert_eq!(log.figures().dropped_lines(), 0);
}

#[test]
fn a_signal_has_a_server_open_its_log_anew() {
    let server = Server::start(&[]);
    server.connect("ann").close();
    let is_last = |line: &Value| line["type"] == "disconnect";
    eventually("her last line", || server.event_log().iter().any(is_last));
    let [path] = &fs::read_dir(server.logs_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>()[..]
    else {
        panic!("one file");
    };
    let moved = server.logs_dir().join("moved");
    fs::rename(path, &moved).unwrap();
    server.signal(rustix::process::Signal::USR1);
    eventually("the new file", || path.exists());
    eventually("its word", || {
        server.output().contains("the event log was opened anew")
    });
    let before = fs::read_to_string(&moved).unwrap();
    server.connect("bob").close();
    eventually("the new line", || {
        fs::read_to_string(path).unwrap().contains("\"bob\"")
    });
    assert_eq!(fs::read_to_string(&moved).unwrap(), before);
    assert!(before.contains("\"ann\""));
}

#[test]
fn output_that_nobody_takes_stops_nothing() {
    // As when stderr and stdout go to files on a full disk.
    let full = || fs::OpenOptions::new().write(true).open("/dev/full");
    let dir = tempfile::tempdir().unwrap();
    let mut command = support::command();
    command
        .current_dir(dir.path())
        .args(["serve", "--dev", "--set", "server.listen=127.0.0.1:0"])
        .args(["--set", "metrics.listen=127.0.0.1:0"])
        .args(["--set", "stats.console_interval=1s"])
        .env("FANFARE_LOG", "debug")
        .stdout(full().unwrap())
        .stderr(full().unwrap());
    let mut process = command.spawn().unwrap();
    let socket = dir.path().join("data/control.sock");
    let ask = |command: &str| {
        let output = support::command()
            .current_dir(dir.path())
            .args([command, "--dev"])
            .output();
        output.unwrap().status.success()
    };
    eventually("it serves", || socket.exists() && ask("stats"));
    // Says something, and prints the statistics meanwhile.
    for _ in 0..12 {
        assert!(ask("reload"));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(process.try_wait().unwrap().is_none());
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&process),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(process.wait().unwrap().success());
}

/// A file system of its own, which is soon full.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, which is said past the capture of tests, where nothing can be mounted.
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        let mut terminal = std::io::stderr();
        let _ = writeln!(
            terminal,
            "SKIPPED, nothing was tested: a full disk (only root can mount a small one)"
        );
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

/// Forty days of somebody's machine: bursts past the bound of a day, restarts, torn lines, a clock that is set
/// back over midnight, files that are moved away, other settings. At every day's end each line that was
/// written is in one place, in the file of its day; every other one is counted.
#[test]
fn forty_days() {
    const KEEP_DAYS: u32 = 9;
    let mut dice = Dice::from_environment();
    let dir = tempfile::tempdir().unwrap();
    let moved = tempfile::tempdir().unwrap();
    let mut logs = Logs {
        day_bytes: 24 << 10,
        ..logs_in(dir.path(), KEEP_DAYS)
    };
    let clock = Clock::manual(MONDAY - MONDAY % 86_400_000);
    let (mut log, mut guard) = EventLog::open(&logs, clock.clone()).unwrap();
    let (mut said, mut written, mut dropped) = (0_u64, 0, 0);
    // In this life of the log.
    let mut since = 0;
    let mut seen = BTreeMap::new();
    let settle = |log: &EventLog, since: u64| {
        eventually("every line has its fate", || {
            let figures = log.figures();
            figures.written_lines + figures.dropped_lines() == since
        });
    };
    let (mut hour, mut latest) = (0, 0);
    while hour < 40 * 24 {
        hour += 1;
        latest = hour.max(latest);
        // Else the day may just be compressed, which is no time for others to write to it or move it away.
        let is_new = hour == latest;
        clock.advance(Duration::from_secs(3_600) - Duration::from_millis(1));
        let burst = if dice.below(12) == 0 { 400 } else { 12 };
        for _ in 0..dice.below(burst) {
            say_as_client(&log, said);
            said += 1;
            since += 1;
        }
        clock.advance(Duration::from_millis(1));
        match dice.below(40) {
            0 | 1 => {
                settle(&log, since);
                drop(guard);
                let figures = log.figures();
                written += figures.written_lines;
                dropped += figures.dropped_lines();
                since = 0;
                // Killed in the middle of a line, perhaps, and in the middle of compressing.
                let today = dir.path().join(format!("ws-{}.log", date(&clock)));
                if is_new && dice.below(2) == 0 && today.exists() {
                    let mut file = fs::OpenOptions::new().append(true).open(&today).unwrap();
                    file.write_all(b"{\"torn").unwrap();
                    fs::write(dir.path().join("ws-2026-11-23.log.gz.tmp"), "half").unwrap();
                }
                (log, guard) = EventLog::open(&logs, clock.clone()).unwrap();
            }
            2 => {
                let hours = dice.below(30).min(hour);
                clock.set_back(Duration::from_secs(hours * 3_600));
                hour -= hours;
            }
            3 if is_new => {
                let today = dir.path().join(format!("ws-{}.log", date(&clock)));
                let to = moved.path().join(format!("{hour}-{said}"));
                if today.exists() {
                    fs::rename(&today, to).unwrap();
                }
                log.renew(&logs).unwrap();
            }
            4 => {
                logs.day_bytes = (12 + dice.below(24)) << 10;
                log.renew(&logs).unwrap();
            }
            _ => {}
        }
        if hour % 24 == 0 {
            // It is the line that begins a day.
            say_as_client(&log, said);
            said += 1;
            since += 1;
            settle(&log, since);
            // Older days are put away, and none is kept too long.
            let today = date(&clock);
            eventually("the older days are put away", || {
                let names = names(dir.path());
                names
                    .iter()
                    .all(|name| name[3..13] >= *today || name.ends_with(".log.gz"))
            });
            eventually("the oldest is deleted", || {
                let all = names(dir.path());
                all.iter().filter(|name| name[3..13] <= *today).count() <= KEEP_DAYS as usize
            });
            look(dir.path(), moved.path(), &mut seen);
        }
    }
    settle(&log, since);
    drop(guard);
    written += log.figures().written_lines;
    dropped += log.figures().dropped_lines();
    look(dir.path(), moved.path(), &mut seen);
    assert_eq!(log.figures().io_errors, 0);
    assert_eq!(written + dropped, said);
    assert_eq!(seen.len() as u64, written, "of {said}");
    assert!(dropped > 0 && names(dir.path()).len() >= KEEP_DAYS as usize);
    println!("{said} lines: {written} written, {dropped} past the bound of a day");
}

fn date(clock: &Clock) -> String {
    fanfare::clock::date(clock.unix_ms())
}

fn say_as_client(log: &EventLog, n: u64) {
    let id = n.to_string();
    let data = Data {
        connection_id: Some(&id),
        ..Data::default()
    };
    log.record(Kind::Connection, &data);
}

/// Notes where every line of a client is: in the file of its day, once.
#[track_caller]
fn look(dir: &Path, moved: &Path, seen: &mut BTreeMap<u64, String>) {
    let mut fault = String::new();
    for _ in 0..1_000 {
        match try_to_look(dir, moved) {
            Ok(now) => return seen.extend(now),
            Err(why) => fault = why,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within ten seconds: {fault}");
}

/// Fails while a day is being put away: its file goes just then, or is there beside the compressed one.
fn try_to_look(dir: &Path, moved: &Path) -> Result<BTreeMap<u64, String>, String> {
    let mut now = BTreeMap::new();
    let files = [dir, moved].map(|dir| fs::read_dir(dir).unwrap());
    for path in files.into_iter().flatten().map(|file| file.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        let file = fs::File::open(&path).map_err(|_| format!("{name} is gone"))?;
        let read = match name.rsplit('.').next() {
            Some("gz") => flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text),
            Some("tmp") => return Err(format!("{name} is there")),
            _ => { file }.read_to_string(&mut text),
        };
        read.unwrap();
        // A file that was moved away may be of any day, but of one.
        let mut day = name
            .get(3..13)
            .filter(|_| name.starts_with("ws-"))
            .map(String::from);
        for line in text.lines().filter(|line| *line != "{\"torn") {
            let line: Value =
                serde_json::from_str(line).unwrap_or_else(|_| panic!("{name}: {line}"));
            let of = line["timestamp"].as_str().unwrap()[..10].to_owned();
            assert_eq!(*day.get_or_insert_with(|| of.clone()), of, "{name}");
            let Some(id) = line["data"]["connectionId"].as_str() else {
                continue;
            };
            if now.insert(id.parse().unwrap(), of).is_some() {
                return Err(format!(
                    "{id} is there twice, the second time in {name}: {:?}",
                    names(dir)
                ));
            }
        }
    }
    Ok(now)
}
