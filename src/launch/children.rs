//! `--devices`: one process of this program for each device, started and looked after.
//!
//! Each child has torchrun's variables and a process group of its own, so that a signal of the terminal reaches it
//! once, through its parent. A rank that fails ends all others: they would wait for it. Should the parent die, the
//! system tells its children to stop.

use super::output::log_file;
use super::{Launch, RESTART, STARTED_BY};
use crate::machine::host_name;
use crate::output::complain;
use crate::stop::{EXIT_CODES, StopSignal};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often children are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What ranks have, after one of them failed, to finish writing before they are killed.
const GRACE: Duration = Duration::from_secs(3);
/// Lines of a failed rank that are shown.
const LAST_LINES: usize = 12;
/// Bytes at the end of a log that are looked at for them.
const TAIL_BYTES: u64 = 16 << 10;
/// Exit code of a command line that makes no sense, which no restart cures.
const USAGE: i32 = 2;

/// What is to be started.
pub struct Start {
    /// How many ranks.
    pub count: usize,
    /// What starts them in place of this process, with its arguments up to the program's name.
    pub through: Option<Vec<OsString>>,
    /// The program, which is this one's own file.
    pub program: PathBuf,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// Where the run's checkpoints are.
    pub checkpoints: PathBuf,
    /// How often a run is started again that failed.
    pub restarts: u32,
}

/// A process of one rank, or of a launcher with all.
struct Process {
    /// The rank, where it is one's.
    rank: Option<usize>,
    child: Child,
    status: Option<ExitStatus>,
}

/// Starts the ranks and waits for them; what `stop` hears is passed on. Returns the exit code: that of the first rank
/// that failed, or of all.
///
/// # Errors
/// Where a process cannot be started.
pub fn run(start: &Start, stop: &StopSignal) -> Result<u8> {
    let before = latest(&start.checkpoints);
    let mut restarts = 0;
    loop {
        let folder = tempfile::Builder::new()
            .prefix("mpnet-ranks-")
            .tempdir()
            .context("creating a folder for what ranks say")?;
        // What was there before this run began is another run's.
        let resumes = restarts > 0 && latest(&start.checkpoints) != before;
        let mut processes = start.processes(folder.path(), resumes)?;
        let failed = watch(&mut processes, stop);
        let Some(failed) = failed else {
            return Ok(code_of_all(&processes));
        };
        let (rank, code) = (processes[failed].rank, code(processes[failed].status));
        start.tell(folder.path(), rank, processes[failed].status);
        let hopeless = code == USAGE as u8 || stop.received().is_some();
        if hopeless || restarts == start.restarts {
            return Ok(code);
        }
        restarts += 1;
        let made = latest(&start.checkpoints).filter(|now| before.as_ref() != Some(now));
        let from = match made {
            Some((name, _)) => name,
            None => "the start, as there is no checkpoint yet".to_owned(),
        };
        complain(&format!(
            "restart {restarts} of {}: going on from {from}",
            start.restarts
        ));
    }
}

/// What `latest` names and when it was written.
fn latest(checkpoints: &Path) -> Option<(String, std::time::SystemTime)> {
    let path = checkpoints.join("latest");
    let written = std::fs::metadata(&path).ok()?.modified().ok()?;
    let name = std::fs::read_to_string(path).ok()?;
    Some((name.trim().to_owned(), written))
}

/// The exit code of a process that ended like this, as a shell has it.
fn code(status: Option<ExitStatus>) -> u8 {
    let Some(status) = status else { return 1 };
    let code = status.code().or_else(|| signal_of(status).map(|s| 128 + s));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// That of processes of which none failed: a stop's, where there was one.
fn code_of_all(processes: &[Process]) -> u8 {
    processes.iter().map(|p| code(p.status)).max().unwrap_or(0)
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal_of(_status: ExitStatus) -> Option<i32> {
    None
}

/// Whether a rank that ends like this leaves the others without it.
fn is_failure(status: ExitStatus) -> bool {
    !status.success() && status.code().is_none_or(|code| !EXIT_CODES.contains(&code))
}

/// Waits until all have ended; a signal is passed on, a failure ends the others. Returns the first that failed.
fn watch(processes: &mut [Process], stop: &StopSignal) -> Option<usize> {
    let (mut passed_on, mut failed, mut since) = (false, None, Instant::now());
    loop {
        if let Some(signal) = stop.received().filter(|_| !passed_on) {
            passed_on = true;
            send(processes, signal);
        }
        for process in processes.iter_mut().filter(|p| p.status.is_none()) {
            // Where the system cannot say, it is asked again.
            process.status = process.child.try_wait().unwrap_or(None);
        }
        if failed.is_none() {
            // Of several at once, one that a signal killed is what the others fell over.
            let fails = |p: &Process| p.status.is_some_and(is_failure);
            let killed = |p: &Process| p.status.and_then(signal_of).is_some();
            let first = processes.iter().position(|p| fails(p) && killed(p));
            failed = first.or_else(|| processes.iter().position(fails));
            if failed.is_some() {
                since = Instant::now();
                send(processes, signal_hook::consts::SIGTERM);
            }
        } else if since.elapsed() > GRACE {
            for process in processes.iter_mut().filter(|p| p.status.is_none()) {
                // It may just have ended.
                let _ = process.child.kill();
            }
        }
        if processes.iter().all(|p| p.status.is_some()) {
            return failed;
        }
        std::thread::sleep(LOOK);
    }
}

/// Sends `signal` to those that run.
fn send(processes: &[Process], signal: i32) {
    for process in processes.iter().filter(|p| p.status.is_none()) {
        signal_process(&process.child, signal);
    }
}

#[cfg(unix)]
fn signal_process(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let (Some(pid), Some(signal)) = (pid, rustix::process::Signal::from_named_raw(signal)) {
        // It may just have ended.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(not(unix))]
fn signal_process(_child: &Child, _signal: i32) {}

/// Makes the system stop this process when the one that started it dies; called by a child of `--devices`.
pub fn follow_parent() {
    #[cfg(target_os = "linux")]
    {
        let stop = Some(rustix::process::Signal::TERM);
        if let Err(error) = rustix::process::set_parent_process_death_signal(stop) {
            tracing::debug!("this rank does not hear of its parent's death: {error}");
        }
    }
}

/// Where a rank says which update it is at, for whoever started it with `--devices`.
pub struct Progress(Option<File>);

impl Progress {
    /// That of the rank `launch`.
    pub fn of(launch: &Launch) -> Progress {
        let folder = std::env::var_os(STARTED_BY).map(PathBuf::from);
        // Without it a failure is told without its update.
        let file = folder.and_then(|folder| File::create(progress_file(&folder, launch.rank)).ok());
        Progress(file)
    }

    /// The rank begins update `step`.
    pub fn at(&mut self, step: u64) {
        use std::io::{Seek, Write};
        if let Some(file) = &mut self.0 {
            // As long as the one before, which it replaces.
            let written = file.rewind().and_then(|()| write!(file, "{step:>20}"));
            if written.is_err() {
                self.0 = None;
            }
        }
    }
}

/// The update that rank `rank` is at, in the folder that the variable `STARTED_BY` names.
fn progress_file(folder: &Path, rank: usize) -> PathBuf {
    folder.join(format!("rank-{rank}.update"))
}

fn output_file(folder: &Path, rank: usize) -> PathBuf {
    folder.join(format!("rank-{rank}.out"))
}

impl Start {
    fn processes(&self, folder: &Path, resumes: bool) -> Result<Vec<Process>> {
        let common = |mut command: Command| {
            command.env(STARTED_BY, folder);
            if resumes {
                command.env(RESTART, "1");
            }
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            command
        };
        if let Some(launcher) = &self.through {
            let (first, rest) = launcher
                .split_first()
                .context("a launcher without a name")?;
            let mut command = common(Command::new(first));
            command.args(rest).arg(&self.program).args(&self.arguments);
            let child = command
                .spawn()
                .with_context(|| format!("starting {}", first.to_string_lossy()))?;
            return Ok(vec![Process {
                rank: None,
                child,
                status: None,
            }]);
        }
        let port = free_port().context("finding a free port")?.to_string();
        let count = self.count.to_string();
        let mut processes: Vec<Process> = Vec::new();
        for rank in 0..self.count {
            let mut command = common(Command::new(&self.program));
            let number = rank.to_string();
            command
                .args(&self.arguments)
                .envs([("RANK", &number), ("LOCAL_RANK", &number)])
                .envs([("WORLD_SIZE", &count), ("LOCAL_WORLD_SIZE", &count)])
                .envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)]);
            if rank > 0 {
                let path = output_file(folder, rank);
                let file = File::create(&path)
                    .and_then(|file| Ok((file.try_clone()?, file)))
                    .with_context(|| format!("creating {}", path.display()))?;
                command.stdout(file.0).stderr(file.1).stdin(Stdio::null());
            }
            match command.spawn() {
                Ok(child) => processes.push(Process {
                    rank: Some(rank),
                    child,
                    status: None,
                }),
                Err(error) => {
                    for process in &mut processes {
                        let _ = process.child.kill();
                        let _ = process.child.wait();
                    }
                    return Err(error).context(format!("starting rank {rank}"));
                }
            }
        }
        Ok(processes)
    }

    /// Says which rank failed, how, where it was and what it said last.
    fn tell(&self, folder: &Path, rank: Option<usize>, status: Option<ExitStatus>) {
        let how = match status {
            Some(status) => status.to_string(),
            None => "unknown status".to_owned(),
        };
        let Some(rank) = rank else {
            complain(&format!("the launcher of the ranks ended: {how}"));
            return;
        };
        let at = std::fs::read_to_string(progress_file(folder, rank));
        let at = match at {
            Ok(update) => format!(" at update {}", update.trim()),
            Err(_) => " before its first update".to_owned(),
        };
        complain(&format!(
            "rank {rank} of {} on {} ended{at}: {how}; all others are ended too",
            self.count,
            host_name()
        ));
        // The first one's stand on the terminal.
        if rank > 0 {
            let files = [log_file(&self.checkpoints, rank), output_file(folder, rank)];
            let lines: Vec<String> = files.iter().flat_map(|file| last_lines(file)).collect();
            let from = lines.len().saturating_sub(LAST_LINES);
            for line in &lines[from..] {
                complain(&format!("  rank {rank}: {line}"));
            }
        }
    }
}

/// The last lines of a file; none where it cannot be read.
fn last_lines(path: &Path) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    lines[from..].iter().map(|&line| line.to_owned()).collect()
}

/// A port that nothing listens at now.
fn free_port() -> std::io::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Three ranks that run a script of the shell, in a folder of their own.
    fn start(folder: &Path, script: &str, restarts: u32) -> Start {
        Start {
            count: 3,
            through: None,
            program: "/bin/sh".into(),
            arguments: ["-c", script].map(OsString::from).to_vec(),
            checkpoints: folder.to_owned(),
            restarts,
        }
    }

    fn ran(folder: &Path, script: &str, restarts: u32) -> u8 {
        let script = format!("cd {}; {script}", folder.display());
        run(&start(folder, &script, restarts), &StopSignal::unheard()).unwrap()
    }

    fn lines(folder: &Path, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn ranks_have_the_variables_of_torchrun() {
        let folder = tempfile::tempdir().unwrap();
        let said = "echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR >> said; test $MASTER_PORT -gt 0";
        assert_eq!(ran(folder.path(), said, 0), 0);
        let expected: Vec<String> = (0..3).map(|n| format!("{n} 3 {n} 3 127.0.0.1")).collect();
        assert_eq!(lines(folder.path(), "said"), expected);
    }

    #[test]
    fn a_rank_that_fails_ends_the_others_and_its_code_is_passed_on() {
        // One that does not listen to SIGTERM is killed.
        for (failure, code) in [("exit 7", 7), ("kill -KILL $$", 137), ("exit 2", 2)] {
            let folder = tempfile::tempdir().unwrap();
            let script = format!(
                "case $RANK in 0) trap '' TERM;; 1) until test -e there; do sleep 0.01; done; {failure};; \
                 2) trap 'echo ended >> said; exit 1' TERM;; esac; \
                 test $RANK = 2 && touch there; while true; do sleep 0.05; done"
            );
            assert_eq!(ran(folder.path(), &script, 0), code, "{failure}");
            assert_eq!(lines(folder.path(), "said"), ["ended"], "{failure}");
        }
    }

    #[test]
    fn a_failed_run_starts_again_from_a_checkpoint_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        // Of a run before.
        std::fs::write(folder.path().join("latest"), "checkpoint-9\n").unwrap();
        let script = "if test $RANK = 0; then echo start $MPNET_RESTART >> said; \
            case $(wc -l < said) in 2) echo checkpoint-3 > latest;; 4) exit 0;; esac; exit 1; fi";
        assert_eq!(ran(folder.path(), script, 2), 1, "restarts are used up");
        std::fs::remove_file(folder.path().join("said")).unwrap();
        std::fs::write(folder.path().join("latest"), "checkpoint-9\n").unwrap();
        assert_eq!(ran(folder.path(), script, 3), 0);
        let said = lines(folder.path(), "said");
        assert_eq!(said, ["start", "start", "start 1", "start 1"]);
    }

    #[test]
    fn a_signal_is_passed_on_and_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "cd {}; trap 'echo $RANK >> said; exit 143' TERM; echo >> there; while true; do sleep 0.05; done",
            folder.path().display()
        );
        let stop = StopSignal::unheard();
        let raised = stop.clone();
        let there = folder.path().to_owned();
        let thread = std::thread::spawn(move || {
            while lines(&there, "there").len() < 3 {
                std::thread::sleep(LOOK);
            }
            raised.raise(signal_hook::consts::SIGTERM);
        });
        let code = run(&start(folder.path(), &script, 5), &stop).unwrap();
        thread.join().unwrap();
        assert_eq!(code, 143);
        assert_eq!(lines(folder.path(), "said"), ["0", "1", "2"]);
    }

    #[test]
    fn the_last_lines_of_a_file_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(last_lines(&path).is_empty());
        let text: String = (0..5000).map(|n| format!("line {n}\n\n")).collect();
        std::fs::write(&path, text).unwrap();
        let found = last_lines(&path);
        assert_eq!(found.len(), LAST_LINES);
        assert_eq!(found.last().unwrap(), "line 4999");
    }
}
