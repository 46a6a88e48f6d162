//! Memory policies (mm/mempolicy.c, mm/migrate.c), on a machine with one node: they are checked and remembered.

use abi::capability::CAP_SYS_NICE;
use abi::mman as m;
use abi::{Errno, Result};
use platform::PAGE_SIZE;
use sentry::mm::policy::Policy;
use sentry::task::CurrentTask;

use crate::arguments::{Address, UserPtr};
use crate::credentials::may_inspect;
use crate::process;
use crate::rows;
use crate::table::Row;

/// The rows of this family.
pub const ROWS: &[Row] = rows! {
    MBIND => mbind;
    SET_MEMPOLICY => set_mempolicy;
    GET_MEMPOLICY => get_mempolicy;
    SET_MEMPOLICY_HOME_NODE => set_mempolicy_home_node;
    MIGRATE_PAGES => migrate_pages;
    MOVE_PAGES => move_pages;
};

/// The nodes there are: one.
const NODES: u64 = 1;

/// The nodes that a kernel knows of (MAX_NUMNODES).
const NODES_MAX: usize = 1024;

/// A mask of nodes (get_nodes()): the first 64, and whether there are others. `maxnode` counts one too many.
fn read_nodes(task: &CurrentTask, mask: Address, maxnode: u64) -> Result<u64> {
    let bits = maxnode.wrapping_sub(1);
    if bits == 0 || mask.0 == 0 {
        return Ok(0);
    }
    if bits > PAGE_SIZE * 8 {
        return Err(Errno::EINVAL);
    }
    let bits = bits as usize;
    let mut words: Vec<u64> = UserPtr::new(mask.0).read_slice(task, bits.div_ceil(64))?;
    if !bits.is_multiple_of(64)
        && let Some(last) = words.last_mut()
    {
        *last &= (1 << (bits % 64)) - 1;
    }
    if words.iter().skip(NODES_MAX / 64).any(|&word| word != 0) {
        return Err(Errno::EINVAL);
    }
    // Nodes that do not exist: one bit stands for them all.
    let absent = words.iter().skip(1).any(|&word| word != 0);
    Ok(words.first().copied().unwrap_or(0) | if absent { 1 << 63 } else { 0 })
}

/// A policy as mpol_new() and mpol_set_nodemask() make it. EINVAL.
fn policy(mode: u32, nodes: u64) -> Result<Policy> {
    let flags = mode & (m::MPOL_F_STATIC_NODES | m::MPOL_F_RELATIVE_NODES | m::MPOL_F_NUMA_BALANCING);
    let mut kind = mode & !flags;
    let of_nodes = flags & (m::MPOL_F_STATIC_NODES | m::MPOL_F_RELATIVE_NODES);
    let balances = flags & m::MPOL_F_NUMA_BALANCING != 0;
    if kind > m::MPOL_WEIGHTED_INTERLEAVE
        || of_nodes == m::MPOL_F_STATIC_NODES | m::MPOL_F_RELATIVE_NODES
        || balances && kind != m::MPOL_BIND && kind != m::MPOL_PREFERRED_MANY
    {
        return Err(Errno::EINVAL);
    }
    match kind {
        m::MPOL_DEFAULT if nodes != 0 => return Err(Errno::EINVAL),
        m::MPOL_DEFAULT => return Ok(Policy::default()),
        m::MPOL_PREFERRED if nodes == 0 => {
            if of_nodes != 0 {
                return Err(Errno::EINVAL);
            }
            kind = m::MPOL_LOCAL;
        }
        m::MPOL_LOCAL if nodes != 0 || of_nodes != 0 => return Err(Errno::EINVAL),
        m::MPOL_LOCAL => {}
        _ if nodes == 0 => return Err(Errno::EINVAL),
        _ => {}
    }
    // Relative to the nodes there are, each is the first.
    let there = if flags & m::MPOL_F_RELATIVE_NODES != 0 { NODES } else { nodes & NODES };
    if kind != m::MPOL_LOCAL && there == 0 {
        return Err(Errno::EINVAL);
    }
    let shown = if of_nodes != 0 { nodes } else { there };
    Ok(Policy { mode: (kind | flags) as u16, nodes: if kind == m::MPOL_LOCAL { 0 } else { shown } })
}

fn mbind(
    task: &CurrentTask,
    start: u64,
    len: u64,
    mode: u32,
    mask: Address,
    maxnode: u64,
    flags: u32,
) -> Result<()> {
    let nodes = read_nodes(task, mask, maxnode)?;
    if flags & !(m::MPOL_MF_STRICT | m::MPOL_MF_MOVE | m::MPOL_MF_MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & m::MPOL_MF_MOVE_ALL != 0 && !task.capable(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let end = len.checked_next_multiple_of(PAGE_SIZE).and_then(|len| start.checked_add(len));
    let end = end.ok_or(Errno::EINVAL)?;
    if end == start {
        return Ok(());
    }
    let policy = policy(mode, nodes)?;
    task.mm().set_policy(start, end, policy, policy.mode == m::MPOL_DEFAULT as u16)
}

fn set_mempolicy(task: &CurrentTask, mode: u32, mask: Address, maxnode: u64) -> Result<()> {
    let nodes = read_nodes(task, mask, maxnode)?;
    *task.memory_policy.lock() = policy(mode, nodes)?;
    Ok(())
}

fn get_mempolicy(
    task: &CurrentTask,
    mode: UserPtr<i32>,
    mask: Address,
    maxnode: u64,
    addr: u64,
    flags: u32,
) -> Result<()> {
    if mask.0 != 0 && maxnode < 1 {
        return Err(Errno::EINVAL);
    }
    let own = *task.memory_policy.lock();
    if flags & !(m::MPOL_F_NODE | m::MPOL_F_ADDR | m::MPOL_F_MEMS_ALLOWED) != 0 {
        return Err(Errno::EINVAL);
    }
    let (shown, nodes) = if flags & m::MPOL_F_MEMS_ALLOWED != 0 {
        if flags & (m::MPOL_F_NODE | m::MPOL_F_ADDR) != 0 {
            return Err(Errno::EINVAL);
        }
        (0, NODES)
    } else {
        let found = if flags & m::MPOL_F_ADDR != 0 {
            let of_mapping = task.mm().policy_at(addr)?;
            if of_mapping.mode == 0 { own } else { of_mapping }
        } else if addr != 0 {
            return Err(Errno::EINVAL);
        } else {
            own
        };
        if flags & m::MPOL_F_NODE != 0 {
            let interleaves = u32::from(found.mode) & 0xff == m::MPOL_INTERLEAVE;
            if flags & m::MPOL_F_ADDR != 0 {
                // The node of the page, which is brought in if it is not there.
                task.mm().read_object::<u8>(addr)?;
            } else if !interleaves {
                return Err(Errno::EINVAL);
            }
            (0, found.nodes)
        } else {
            (i32::from(found.mode), found.nodes)
        }
    };
    mode.write_if_some(task, &shown)?;
    if mask.0 == 0 {
        return Ok(());
    }
    let bytes = maxnode.wrapping_sub(1).checked_next_multiple_of(64).ok_or(Errno::EINVAL)? / 8;
    if bytes > PAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    let mut out = vec![0u8; bytes as usize];
    let first = nodes.to_le_bytes();
    let len = first.len().min(out.len());
    out[..len].copy_from_slice(&first[..len]);
    task.mm().write_bytes(mask.0, &out)
}

fn set_mempolicy_home_node(task: &CurrentTask, start: u64, len: u64, node: u64, flags: u64) -> Result<()> {
    if !start.is_multiple_of(PAGE_SIZE)
        || flags != 0
        || node >= NODES_MAX as u64
        || NODES >> node.min(63) & 1 == 0
    {
        return Err(Errno::EINVAL);
    }
    let end = len.checked_next_multiple_of(PAGE_SIZE).and_then(|len| start.checked_add(len));
    let end = end.ok_or(Errno::EINVAL)?;
    if end == start {
        return Ok(());
    }
    // Only policies that have a home are given one.
    let mode = u32::from(task.mm().policy_at(start).map_err(|_| Errno::ENOENT)?.mode) & 0xff;
    match mode {
        m::MPOL_DEFAULT => Err(Errno::ENOENT),
        m::MPOL_BIND | m::MPOL_PREFERRED_MANY => Ok(()),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

fn migrate_pages(task: &CurrentTask, pid: i32, maxnode: u64, old: Address, new: Address) -> Result<u32> {
    let _old = read_nodes(task, old, maxnode)?;
    let new = read_nodes(task, new, maxnode)?;
    let target = process::thread(task, pid)?;
    may_inspect(task, &target)?;
    if new & !NODES != 0 && !task.capable(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    if new & NODES == 0 {
        return Err(Errno::EINVAL);
    }
    target.memory().ok_or(Errno::EINVAL)?;
    Ok(0)
}

fn move_pages(
    task: &CurrentTask,
    pid: i32,
    count: u64,
    pages: UserPtr<u64>,
    nodes: UserPtr<i32>,
    status: UserPtr<i32>,
    flags: u32,
) -> Result<()> {
    const CHUNK: u64 = 512;
    if flags & !(m::MPOL_MF_MOVE | m::MPOL_MF_MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & m::MPOL_MF_MOVE_ALL != 0 && !task.capable(CAP_SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let target = process::thread(task, pid)?;
    may_inspect(task, &target)?;
    let mm = target.memory().ok_or(Errno::EINVAL)?;
    let mut done = 0;
    while done < count {
        if task.is_killed() {
            return Err(Errno::EINTR);
        }
        let len = (count - done).min(CHUNK) as usize;
        let addresses = pages.at(done as usize)?.read_slice(task, len)?;
        let wanted = match nodes.non_null() {
            Some(nodes) => Some(nodes.at(done as usize)?.read_slice(task, len)?),
            None => None,
        };
        let mut found = Vec::with_capacity(len);
        for (i, addr) in addresses.iter().enumerate() {
            // There are no other nodes.
            if wanted.as_ref().and_then(|wanted| wanted.get(i)).is_some_and(|&node| node != 0) {
                return Err(Errno::ENODEV);
            }
            let mut resident = [0u8];
            let state = match mm.resident(addr & !(PAGE_SIZE - 1), &mut resident) {
                Err(_) => -Errno::EFAULT.raw(),
                Ok(()) if resident[0] & 1 == 0 => -Errno::ENOENT.raw(),
                Ok(()) => 0,
            };
            found.push(state);
        }
        task.mm().write_bytes(status.at(done as usize)?.addr, zerocopy::IntoBytes::as_bytes(&found[..]))?;
        done += len as u64;
    }
    Ok(())
}
