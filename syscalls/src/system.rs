//! What the system says of itself, limits, usage, scheduling (kernel/sys.c, kernel/sched/syscalls.c).

use std::sync::Arc;

use abi::capability::{CAP_SYS_ADMIN, CAP_SYS_NICE, CAP_SYS_RESOURCE};
use abi::resource::{
    RLIM_NLIMITS, RLIMIT_CPU, RLIMIT_NOFILE, RUSAGE_CHILDREN, RUSAGE_SELF, RUSAGE_THREAD, Rlimit,
};
use abi::sched::{SCHED_DEADLINE, SCHED_FIFO, SCHED_IDLE, SCHED_RR, SchedParam};
use abi::sysinfo::{SI_LOAD_SHIFT, Sysinfo};
use abi::utsname::Utsname;
use abi::wait::Rusage;
use abi::{Errno, Result};
use sentry::kernel::{RELEASE, VERSION};
use sentry::task::{CurrentTask, Task};

use crate::arguments::{Address, UserPtr};

use crate::process::{self, rusage};
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    UNAME => uname;
    SETHOSTNAME => sethostname;
    SETDOMAINNAME => setdomainname;
    SYSINFO => sysinfo;
    GETRANDOM => getrandom;
    GETRLIMIT => getrlimit;
    SETRLIMIT => setrlimit;
    PRLIMIT64 => prlimit64;
    GETRUSAGE => getrusage, Partial, "page faults and blocks are not counted";
    GETCPU => getcpu;
    SCHED_YIELD => sched_yield;
    SCHED_GETAFFINITY => sched_getaffinity;
    SCHED_SETAFFINITY => sched_setaffinity, Partial, "remembered; the host schedules";
    SCHED_GETSCHEDULER => sched_getscheduler;
    SCHED_SETSCHEDULER => sched_setscheduler, Partial, "remembered; the host schedules";
    SCHED_GETPARAM => sched_getparam;
    SCHED_SETPARAM => sched_setparam, Partial, "remembered; the host schedules";
    SCHED_GET_PRIORITY_MAX => sched_get_priority_max;
    SCHED_GET_PRIORITY_MIN => sched_get_priority_min;
    GETPRIORITY => getpriority;
    SETPRIORITY => setpriority, Partial, "remembered; the host schedules";
    PERSONALITY => personality;
};

fn field(text: &[u8]) -> [u8; 65] {
    let mut field = [0; 65];
    let len = text.len().min(64);
    field[..len].copy_from_slice(&text[..len]);
    field
}

fn uname(task: &CurrentTask, buf: UserPtr<Utsname>) -> Result<()> {
    let uts = task.namespaces().uts.clone();
    buf.write(
        task,
        &Utsname {
            sysname: field(b"Linux"),
            nodename: field(&uts.hostname()),
            release: field(RELEASE.as_bytes()),
            version: field(VERSION.as_bytes()),
            machine: field(b"x86_64"),
            domainname: field(&uts.domainname()),
        },
    )
}

fn host_name(task: &CurrentTask, name: Address, len: i32) -> Result<Vec<u8>> {
    if !task.credentials().capable_in(&task.namespaces().uts.user_ns, CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(len).ok().filter(|&l| l <= 64).ok_or(Errno::EINVAL)?;
    let mut text = vec![0; len];
    task.mm().read_bytes(name.0, &mut text)?;
    Ok(text)
}

fn sethostname(task: &CurrentTask, name: Address, len: i32) -> Result<()> {
    let name = host_name(task, name, len)?;
    task.namespaces().uts.set_hostname(&name);
    Ok(())
}

fn setdomainname(task: &CurrentTask, name: Address, len: i32) -> Result<()> {
    let name = host_name(task, name, len)?;
    task.namespaces().uts.set_domainname(&name);
    Ok(())
}

fn sysinfo(task: &CurrentTask, info: UserPtr<Sysinfo>) -> Result<()> {
    let kernel = task.kernel();
    let loads = kernel.load_averages().map(|load| (load * f64::from(1 << SI_LOAD_SHIFT)) as u64);
    info.write(
        task,
        &Sysinfo {
            // Rounded up, so that it is never 0.
            uptime: kernel.clock.boottime().div_ceil(1_000_000_000) as i64,
            loads,
            totalram: task.group.container.memory(),
            freeram: kernel.memory_free(&task.group.container),
            procs: kernel.counts.all().min(u16::MAX as usize) as u16,
            mem_unit: 1,
            ..Sysinfo::default()
        },
    )
}

fn getrandom(task: &CurrentTask, buf: Address, len: usize, flags: u32) -> Result<usize> {
    const GRND_RANDOM: u32 = 2;
    const GRND_INSECURE: u32 = 4;
    if flags & !7 != 0 || flags & (GRND_RANDOM | GRND_INSECURE) == GRND_RANDOM | GRND_INSECURE {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    let len = len.min(i32::MAX as usize);
    let mut done = 0;
    let mut bytes = [0u8; 4096];
    while done < len {
        let part = &mut bytes[..(len - done).min(4096)];
        task.kernel().fill_random(part);
        match mm.write_result_upto(buf.0.wrapping_add(done as u64), part) {
            Ok(n) if n == part.len() => done += n,
            Ok(n) => return Ok(done + n),
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if task.has_signal() && done < len {
            break;
        }
    }
    Ok(done)
}

fn getrlimit(task: &CurrentTask, which: u32, limit: UserPtr<Rlimit>) -> Result<()> {
    if which >= RLIM_NLIMITS {
        return Err(Errno::EINVAL);
    }
    limit.write(task, &task.group.limits.get(which))
}

fn setrlimit(task: &CurrentTask, which: u32, limit: UserPtr<Rlimit>) -> Result<()> {
    let new = limit.read(task)?;
    set_limit(task, task, which, new)
}

fn set_limit(task: &CurrentTask, target: &Arc<Task>, which: u32, new: Rlimit) -> Result<()> {
    if which >= RLIM_NLIMITS || new.rlim_cur > new.rlim_max {
        return Err(Errno::EINVAL);
    }
    if which == RLIMIT_NOFILE && new.rlim_max > sentry::vfs::fd_table::NR_OPEN {
        return Err(Errno::EPERM);
    }
    let limits = &target.group.limits;
    if new.rlim_max > limits.get(which).rlim_max && !task.capable(CAP_SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    limits.set(which, new);
    if which == RLIMIT_CPU {
        target.group.timers.watch_cpu_limit(&target.group);
    }
    Ok(())
}

fn prlimit64(
    task: &CurrentTask,
    pid: i32,
    which: u32,
    new: UserPtr<Rlimit>,
    old: UserPtr<Rlimit>,
) -> Result<()> {
    if which >= RLIM_NLIMITS {
        return Err(Errno::EINVAL);
    }
    let new = match new.non_null() {
        Some(pointer) => Some(pointer.read(task)?),
        None => None,
    };
    let target = process::thread(task, pid)?;
    let (own, other) = (task.credentials(), target.credentials());
    let same = [other.uid, other.euid, other.suid].iter().all(|&id| id == own.uid)
        && [other.gid, other.egid, other.sgid].iter().all(|&id| id == own.gid);
    if !Arc::ptr_eq(&task.group, &target.group) && !same && !own.capable_in(&other.user_ns, CAP_SYS_RESOURCE)
    {
        return Err(Errno::EPERM);
    }
    let previous = target.group.limits.get(which);
    if let Some(new) = new {
        set_limit(task, &target, which, new)?;
    }
    old.write_if_some(task, &previous)
}

fn getrusage(task: &CurrentTask, who: i32, usage: UserPtr<Rusage>) -> Result<()> {
    task.update_cpu_time();
    let found = match who {
        RUSAGE_SELF => task.group.usage(),
        RUSAGE_CHILDREN => *task.group.children_usage.lock(),
        RUSAGE_THREAD => task.usage(),
        _ => return Err(Errno::EINVAL),
    };
    usage.write(task, &rusage(&found))
}

fn getcpu(task: &CurrentTask, cpu: UserPtr<u32>, node: UserPtr<u32>) -> Result<()> {
    // The sentry thread and its guest's run near each other; where exactly is the host's affair.
    let here = platform::host_cpu() % task.group.container.cpus();
    let here = allowed_cpu(&task.affinity(), here);
    cpu.write_if_some(task, &here)?;
    node.write_if_some(task, &0)
}

/// `here` if the mask allows it, else the first that it does.
fn allowed_cpu(mask: &[u64], here: u32) -> u32 {
    let allows = |cpu: u32| mask.get(cpu as usize / 64).is_some_and(|word| word >> (cpu % 64) & 1 != 0);
    if allows(here) { here } else { (0..mask.len() as u32 * 64).find(|&cpu| allows(cpu)).unwrap_or(here) }
}

fn sched_yield(_task: &CurrentTask) -> Result<()> {
    std::thread::yield_now();
    Ok(())
}

fn sched_getaffinity(task: &CurrentTask, pid: i32, size: usize, mask: Address) -> Result<usize> {
    let target = process::thread(task, pid)?;
    let words = target.affinity();
    if size < target.group.container.cpus().div_ceil(8) as usize || !size.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let len = bytes.len().min(size);
    task.mm().write_result(mask.0, &bytes[..len])?;
    Ok(len)
}

fn sched_setaffinity(task: &CurrentTask, pid: i32, size: usize, mask: Address) -> Result<()> {
    let cpus = task.group.container.cpus();
    let mut new = vec![0u64; (cpus as usize).div_ceil(64)];
    let mut bytes = vec![0u8; size.min(new.len() * 8)];
    task.mm().read_bytes(mask.0, &mut bytes)?;
    let target = process::thread(task, pid)?;
    check_scheduler(task, &target)?;
    for (i, byte) in bytes.iter().enumerate() {
        new[i / 8] |= u64::from(*byte) << (i % 8 * 8);
    }
    for (word, all) in new.iter_mut().zip(sentry::task::task::all_cpus(cpus)) {
        *word &= all;
    }
    if new.iter().all(|&w| w == 0) {
        return Err(Errno::EINVAL);
    }
    *target.affinity.lock() = Some(new);
    Ok(())
}

fn check_scheduler(task: &CurrentTask, target: &Arc<Task>) -> Result<()> {
    let (own, other) = (task.credentials(), target.credentials());
    let same = own.euid == other.euid || own.euid == other.uid;
    if same || own.capable_in(&other.user_ns, CAP_SYS_NICE) { Ok(()) } else { Err(Errno::EPERM) }
}

fn sched_getscheduler(task: &CurrentTask, pid: i32) -> Result<u32> {
    if pid < 0 {
        return Err(Errno::EINVAL);
    }
    let target = process::thread(task, pid)?;
    let s = *target.scheduling.lock();
    Ok(s.policy | if s.reset_on_fork { abi::sched::SCHED_RESET_ON_FORK } else { 0 })
}

/// The range of static priorities of a policy. EINVAL for one that is not there.
fn priorities(policy: u32) -> Result<(u32, u32)> {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok((1, 99)),
        p if p <= SCHED_IDLE && p != 4 => Ok((0, 0)),
        SCHED_DEADLINE => Ok((0, 0)),
        _ => Err(Errno::EINVAL),
    }
}

fn set_scheduler(
    task: &CurrentTask,
    pid: i32,
    policy: Option<u32>,
    param: UserPtr<SchedParam>,
) -> Result<()> {
    if pid < 0 || param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = param.read(task)?.sched_priority;
    let target = process::thread(task, pid)?;
    let mut new = *target.scheduling.lock();
    if let Some(policy) = policy {
        new.reset_on_fork = policy & abi::sched::SCHED_RESET_ON_FORK != 0;
        new.policy = policy & !abi::sched::SCHED_RESET_ON_FORK;
    }
    let (min, max) = priorities(new.policy)?;
    let priority = u32::try_from(priority).map_err(|_| Errno::EINVAL)?;
    if priority < min || priority > max || new.policy == SCHED_DEADLINE {
        return Err(Errno::EINVAL);
    }
    check_scheduler(task, &target)?;
    let realtime = matches!(new.policy, SCHED_FIFO | SCHED_RR);
    let limit = target.group.limits.current(abi::resource::RLIMIT_RTPRIO);
    if realtime && u64::from(priority) > limit && !task.capable(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    new.priority = priority;
    *target.scheduling.lock() = new;
    Ok(())
}

fn sched_setscheduler(task: &CurrentTask, pid: i32, policy: u32, param: UserPtr<SchedParam>) -> Result<()> {
    if (policy as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    set_scheduler(task, pid, Some(policy), param)
}

fn sched_setparam(task: &CurrentTask, pid: i32, param: UserPtr<SchedParam>) -> Result<()> {
    set_scheduler(task, pid, None, param)
}

fn sched_getparam(task: &CurrentTask, pid: i32, param: UserPtr<SchedParam>) -> Result<()> {
    if pid < 0 || param.is_null() {
        return Err(Errno::EINVAL);
    }
    let target = process::thread(task, pid)?;
    let sched_priority = target.scheduling.lock().priority as i32;
    param.write(task, &SchedParam { sched_priority })
}

fn sched_get_priority_max(_task: &CurrentTask, policy: u32) -> Result<u32> {
    priorities(policy).map(|(_, max)| max)
}

fn sched_get_priority_min(_task: &CurrentTask, policy: u32) -> Result<u32> {
    priorities(policy).map(|(min, _)| min)
}

const PRIO_PROCESS: u32 = 0;
const PRIO_PGRP: u32 = 1;
const PRIO_USER: u32 = 2;

/// The threads that a pair of arguments of getpriority(2) means.
pub(crate) fn targets(task: &CurrentTask, which: u32, who: i32) -> Result<Vec<Arc<Task>>> {
    let found = match which {
        PRIO_PROCESS => vec![process::thread(task, who)?],
        PRIO_PGRP => {
            let group = if who == 0 {
                task.group.process_group()
            } else {
                let pid = u32::try_from(who).ok().and_then(|n| task.pid_ns().find(n));
                pid.and_then(|p| p.process_group()).ok_or(Errno::ESRCH)?
            };
            group.members().iter().flat_map(|p| p.threads()).collect()
        }
        PRIO_USER => {
            let creds = task.credentials();
            let uid = if who == 0 {
                creds.uid
            } else {
                creds.user_ns.kernel_uid(who as u32).map_err(|_| Errno::ESRCH)?
            };
            let all = task.kernel().processes();
            all.iter().flat_map(|p| p.threads()).filter(|t| t.credentials().uid == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() { Err(Errno::ESRCH) } else { Ok(found) }
}

fn getpriority(task: &CurrentTask, which: u32, who: i32) -> Result<i32> {
    let found = targets(task, which, who)?;
    let nice = found.iter().map(|t| t.scheduling.lock().nice).min().unwrap_or(0);
    Ok(20 - nice)
}

fn setpriority(task: &CurrentTask, which: u32, who: i32, nice: i32) -> Result<()> {
    let nice = nice.clamp(-20, 19);
    for target in targets(task, which, who)? {
        let (own, other) = (task.credentials(), target.credentials());
        if own.euid != other.euid && own.euid != other.uid && !own.capable_in(&other.user_ns, CAP_SYS_NICE) {
            return Err(Errno::EPERM);
        }
        let lowest = 20 - target.group.limits.current(abi::resource::RLIMIT_NICE).min(40) as i32;
        let mut scheduling = target.scheduling.lock();
        if nice < scheduling.nice && nice < lowest && !task.capable(CAP_SYS_NICE) {
            return Err(Errno::EACCES);
        }
        scheduling.nice = nice;
    }
    Ok(())
}

fn personality(task: &CurrentTask, new: u32) -> Result<u32> {
    let personality = &task.group.personality;
    let old = personality.load(std::sync::atomic::Ordering::Relaxed);
    if new != u32::MAX {
        personality.store(new, std::sync::atomic::Ordering::Relaxed);
    }
    Ok(old)
}
