//! What processes took, by the system's own account: CPU seconds and memory.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Wall time and CPU time, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub wall: f64,
    pub cpu: f64,
}

/// Measures work of this process, or of children that it waits for.
pub fn measure(who: UsageWho, work: impl FnOnce()) -> Spent {
    let (start, before) = (Instant::now(), cpu(who));
    work();
    Spent { wall: start.elapsed().as_secs_f64(), cpu: (cpu(who) - before).as_secs_f64() }
}

/// Returns the CPU time so far of this process, or of the children that it has waited for.
pub fn cpu(who: UsageWho) -> Duration {
    let usage: Usage = getrusage(who).expect("the system keeps account");
    let total = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(total).expect("time is not negative"))
}

/// Returns the CPU seconds so far of a process that runs, of all its threads.
pub fn cpu_of(process: u32) -> f64 {
    let process = Pid::from_raw(i32::try_from(process).expect("it names a process"));
    // /proc/PID/stat has the same in hundredths of a second, which is too coarse for a request.
    let clock = clock_getcpuclockid(process).expect("the process runs");
    let time = clock_gettime(clock).expect("the process runs");
    Duration::from(time).as_secs_f64()
}

/// Returns the most memory that a process has had so far, in MiB.
pub fn peak_of(process: u32) -> f64 {
    memory(process, "VmHWM:")
}

/// Returns the memory that a process has now, in MiB.
pub fn resident_of(process: u32) -> f64 {
    memory(process, "VmRSS:")
}

fn memory(process: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("it tells its memory");
    let kib: f64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("it is a number");
    kib / 1024.0
}

/// Returns the process of a name that this process started last.
pub fn child(name: &str) -> u32 {
    let is_ours = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let named = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
        named.is_some_and(|(found, rest)| {
            found == name && rest.split_ascii_whitespace().nth(1) == Some(&std::process::id().to_string())
        })
    };
    let processes = fs::read_dir("/proc").expect("there is /proc");
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(is_ours).max().unwrap_or_else(|| panic!("no `{name}` was started"))
}
