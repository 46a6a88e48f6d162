//! Where the boot process meets the sentry: makes the kernel of a sandbox, and answers the control thread by it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use abi::poll::PollEvents;
use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use platform::Platform;
use sentry::Kernel;
use sentry::fs::Mounter;
use sentry::ipc::IpcNamespace;
use sentry::kernel::KernelOptions;
use sentry::loader::Vdso;
use sentry::task::credentials::{IdExtent, IdMap};
use sentry::task::namespaces::{Namespaces, PlainNamespace, UtsNamespace};
use sentry::task::{Credentials, PidNamespace};
use sentry::view::View;
use sentry::wait::{Registration, Wake};

use super::config::BootConfig;
use super::container::{Container, Parts};
use super::guest::{Guest, IdRange, Ids, Process};
use super::host_file::HostFiles;
use super::host_network::HostNetwork;
use super::mounts;
use super::stdio;
use super::volumes::{Gofer, Volumes};
use crate::record;
use crate::report;

/// The names that `--platform` takes beside auto, the preferred one first.
pub const PLATFORMS: &[&str] = &["systrap", "ptrace"];

/// Number, name, support and note of each system call that Linux has.
pub fn syscall_table() -> Vec<[String; 4]> {
    (0..=abi::sysno::MAX)
        .filter_map(|number| {
            let name = abi::sysno::name(number)?;
            let (support, note) = match syscalls::TABLE.row(number) {
                None => ("missing", ""),
                Some(row) => match row.support {
                    syscalls::Support::Full => ("full", row.note),
                    syscalls::Support::Partial => ("partial", row.note),
                    syscalls::Support::Missing => ("missing", row.note),
                },
            };
            Some([number.to_string(), name.to_owned(), support.to_owned(), note.to_owned()])
        })
        .collect()
}

/// Makes a platform by its name; `auto` is the first that works. Must be called while the process has one thread, in
/// its final namespaces, before its filters. `patching`: systrap may rewrite call sites of guests.
pub fn platform(name: &str, patching: bool) -> Result<Arc<dyn Platform>> {
    match name {
        "auto" => {
            let mut failures = Vec::new();
            for name in PLATFORMS {
                match platform(name, patching) {
                    Ok(platform) => return Ok(platform),
                    Err(error) => failures.push(report::line(&error)),
                }
            }
            bail!("none works here: {}", failures.join("; "))
        }
        "systrap" => Ok(Arc::new(platform_systrap::SystrapPlatform::new(patching)?)),
        "ptrace" => Ok(Arc::new(platform_ptrace::Ptrace::new()?)),
        _ => bail!("there is no such platform"),
    }
}

/// Makes the kernel of the sandbox and its first container, which waits for its start.
pub fn start(
    config: BootConfig,
    platform: Arc<dyn Platform>,
    gofer: OwnedFd,
    stdio: Vec<OwnedFd>,
    vdso: Option<Vdso>,
) -> Result<Arc<Sandbox>> {
    let guest = config.guest;
    let kernel = Kernel::new(KernelOptions {
        vdso,
        platform,
        syscalls: &syscalls::TABLE,
        container: guest.id.as_str().into(),
        cpus: guest.limits.cpus,
        memory: guest.limits.memory,
        ids: id_maps(guest.ids.as_ref())?,
        strace: config.strace,
        strace_only: config.strace_calls,
    })
    .context("making the kernel")?;
    let ipc = IpcNamespace::new(&kernel, kernel.user_ns.clone());
    let place = Place {
        host_files: HostFiles::new()?,
        volumes: Volumes::default(),
        access: (config.shared_root, config.shared_mounts),
    };
    let gofer = Gofer::new(gofer)?;
    let mounts = {
        let (container, pid_ns) = (&kernel.first, &kernel.pid_ns);
        let creds = &Credentials::root(kernel.user_ns.clone());
        let from = Mounter { kernel: &kernel, container, pid_ns, ipc: &ipc, creds };
        mounts::build(&from, &guest, &gofer, &place)?
    };
    let namespaces = kernel
        .container_namespaces(mounts, ipc, guest.hostname.as_bytes())
        .context("making the namespaces")?;
    if !guest.domainname.is_empty() {
        namespaces.uts.set_domainname(guest.domainname.as_bytes());
    }
    set_parameters(&kernel, &namespaces, &guest);
    if config.host_network {
        namespaces.net.set_stack(Arc::new(HostNetwork::new(place.host_files.watcher())));
    }
    guest.limits.apply(&kernel, &kernel.first);
    let stdio = stdio::open(&kernel, &namespaces.mount, &place.host_files, &guest.process, stdio)?;
    let first = Arc::new(Container::new(
        &kernel,
        Parts {
            container: kernel.first.clone(),
            namespaces,
            shares_pids: false,
            mortal_init: config.die_with_command,
            start_hooks: guest.start_hooks,
            process: guest.process,
            stdio,
            gofer,
            record: record::Writer::Sandbox,
            stand_in: None,
        },
    )?);
    let containers = Mutex::new(BTreeMap::from([(first.id.clone(), first.clone())]));
    Ok(Arc::new(Sandbox { kernel, place, first, containers, notify: Mutex::default() }))
}

/// The maps of the sandbox's user namespace, for users and groups.
fn id_maps(ids: Option<&Ids>) -> Result<(IdMap, IdMap)> {
    let Some(ids) = ids else { return Ok((IdMap::identity(), IdMap::identity())) };
    let map = |name: &'static str, ranges: &[IdRange]| {
        let extent =
            |range: &IdRange| IdExtent { first: range.inside, kernel: range.host, count: range.count };
        IdMap::new(ranges.iter().map(extent).collect()).with_context(|| format!("config.json: linux.{name}"))
    };
    Ok((map("uidMappings", &ids.users)?, map("gidMappings", &ids.groups)?))
}

fn set_parameters(kernel: &Arc<Kernel>, namespaces: &Namespaces, guest: &Guest) {
    for (name, value) in &guest.sysctl {
        // What is not there cannot be tuned, and containers are better off running.
        if let Err(error) = sentry::fs::proc::sysctl::set(kernel, namespaces, name, value) {
            tracing::warn!("sysctl {name}={value}: {error}");
        }
    }
}

/// What all containers of a sandbox have in common besides the kernel.
pub struct Place {
    /// Their standard files.
    pub host_files: HostFiles,
    /// What they share.
    pub volumes: Volumes,
    /// Whether other processes of the host change root filesystems, and other mounts.
    pub access: (bool, bool),
}

/// One sandbox: its kernel and the containers in it.
pub struct Sandbox {
    kernel: Arc<Kernel>,
    place: Place,
    /// The one that the sandbox was made for, and ends with.
    first: Arc<Container>,
    containers: Mutex<BTreeMap<Arc<str>, Arc<Container>>>,
    notify: Mutex<Option<Registration>>,
}

/// What comes with a container that joins a sandbox.
pub struct Donations {
    /// Standard input, output and error, and what the first process has besides.
    pub stdio: Vec<OwnedFd>,
    /// The connection to its gofer.
    pub gofer: OwnedFd,
    /// Where its end is written.
    pub record: OwnedFd,
    /// Leads to the process of the host that stands for it.
    pub stand_in: OwnedFd,
    /// The files of its cgroup on the host through which processes enter.
    pub entrances: Vec<OwnedFd>,
    /// That they cannot is a failure.
    pub must_enter: bool,
}

/// A platform whose guests are in the cgroup with these entrances; None without entrances.
///
/// The kernel looks at who opened them: so they can be written by a process that could not open anything.
fn placed_platform(
    platform: &dyn Platform,
    entrances: Vec<OwnedFd>,
    must_enter: bool,
) -> Result<Option<Arc<dyn Platform>>> {
    if entrances.is_empty() {
        return Ok(None);
    }
    let entrances: Vec<_> = entrances.iter().map(AsFd::as_fd).collect();
    match platform.branch(&entrances).context("cgroups: making its first process there") {
        Err(error) if !must_enter => {
            tracing::warn!("{}", report::line(&error));
            Ok(None)
        }
        placed => placed.map(Some),
    }
}

struct Notify(Box<dyn Fn() + Send + Sync>);

impl Wake for Notify {
    fn wake(&self, _events: PollEvents) {
        (self.0)();
    }
}

impl Sandbox {
    /// The ids of the host that its users and groups are.
    fn ids(&self) -> (IdMap, IdMap) {
        let user_ns = &self.kernel.user_ns;
        (user_ns.map(true), user_ns.map(false))
    }

    /// The first container.
    pub fn first(&self) -> &Arc<Container> {
        &self.first
    }

    /// A container by its id.
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        let found = self.containers.lock().get(id).cloned();
        found.ok_or_else(|| anyhow!("there is no container {id:?} in this sandbox"))
    }

    /// What the host is to see of a container.
    pub fn view_of(container: &Container) -> View {
        View::new(container.namespaces.mount.clone())
    }

    /// All containers.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.lock().values().cloned().collect()
    }

    /// Makes another container. It shares the network of the first one, and the IPC and UTS namespaces unless it is
    /// to have its own; and the pid namespace of `pids_of`, if that is named.
    pub fn create(
        &self,
        guest: &Guest,
        pids_of: Option<&str>,
        donations: Donations,
    ) -> Result<Arc<Container>> {
        if !self.first.is_started() {
            bail!("the sandbox's first container was not started yet");
        }
        let kernel = &self.kernel;
        if guest.ids.is_some() && id_maps(guest.ids.as_ref())? != self.ids() {
            bail!("linux.uidMappings and gidMappings are not those of the sandbox");
        }
        let sandbox = &self.first.namespaces;
        let pid_ns = match pids_of {
            Some(other) => self.container(other)?.namespaces.pid_for_children.clone(),
            None => PidNamespace::new(Some(kernel.pid_ns.clone()), kernel.user_ns.clone())
                .context("making the pid namespace")?,
        };
        let ipc = match guest.own_ipc {
            true => IpcNamespace::new(kernel, kernel.user_ns.clone()),
            false => sandbox.ipc.clone(),
        };
        let uts = match guest.own_uts {
            true => {
                let domain: &[u8] = match guest.domainname.as_bytes() {
                    b"" => b"(none)",
                    name => name,
                };
                UtsNamespace::new(guest.hostname.as_bytes(), domain, kernel.user_ns.clone())
            }
            false => sandbox.uts.clone(),
        };
        let record = record::Writer::Container(record::Page::open(&donations.record.into())?);
        let gofer = Gofer::new(donations.gofer)?;
        let platform = placed_platform(&*kernel.platform, donations.entrances, donations.must_enter)?;
        let container = sentry::container::Container::new(
            guest.id.as_str().into(),
            platform.unwrap_or_else(|| kernel.platform.clone()),
            kernel.cgroups.new_root(),
            guest.limits.cpus,
            guest.limits.memory,
        );
        let make = || -> Result<Arc<Container>> {
            let creds = &Credentials::root(kernel.user_ns.clone());
            let from = Mounter { kernel, container: &container, pid_ns: &pid_ns, ipc: &ipc, creds };
            let mount = mounts::build(&from, guest, &gofer, &self.place)?;
            let namespaces = Namespaces {
                uts: uts.clone(),
                ipc: ipc.clone(),
                mount,
                pid_for_children: pid_ns.clone(),
                cgroup: PlainNamespace::new(kernel.user_ns.clone()),
                ..sandbox.clone()
            };
            set_parameters(kernel, &namespaces, guest);
            guest.limits.apply(kernel, &container);
            let stdio = stdio::open(
                kernel,
                &namespaces.mount,
                &self.place.host_files,
                &guest.process,
                donations.stdio,
            )?;
            let parts = Parts {
                container: container.clone(),
                namespaces,
                shares_pids: pids_of.is_some(),
                mortal_init: false,
                start_hooks: guest.start_hooks.clone(),
                process: guest.process.clone(),
                stdio,
                gofer: gofer.clone(),
                record,
                stand_in: Some(donations.stand_in.into()),
            };
            let container = Arc::new(Container::new(kernel, parts)?);
            match self.containers.lock().entry(container.id.clone()) {
                Entry::Occupied(_) => bail!("there is a container {:?} already", guest.id),
                Entry::Vacant(free) => free.insert(container.clone()),
            };
            Ok(container)
        };
        make().inspect_err(|_| {
            container.platform.close();
            self.place.volumes.release(&guest.id);
        })
    }

    /// Forgets a container, whose processes have ended, and gives back all that was its own. True if its gofer is needed
    /// by others.
    pub fn remove(&self, container: Arc<Container>) -> bool {
        self.containers.lock().remove(&container.id);
        self.place.volumes.release(&container.id);
        let gofer = Arc::downgrade(&container.gofer);
        drop(container);
        gofer.strong_count() > 0
    }

    /// Lets a container's first process run.
    pub fn start(&self, container: &str) -> Result<()> {
        self.container(container)?.start(&self.place.host_files)
    }

    /// Starts another process in a container.
    pub fn exec(&self, container: &str, process: &Process, stdio: Vec<OwnedFd>) -> Result<i32> {
        self.container(container)?.exec(&self.place.host_files, process, stdio)
    }

    /// Calls this whenever a process that was started from outside may have ended.
    pub fn on_end(&self, notify: Box<dyn Fn() + Send + Sync>) {
        let registration = self.kernel.ended.register(PollEvents::POLLIN, Arc::new(Notify(notify)));
        *self.notify.lock() = Some(registration);
    }

    /// Calls that the guest made and that are not there, with how often.
    pub fn unimplemented(&self) -> Vec<(String, u64)> {
        self.kernel.unimplemented.lock().iter().map(|(call, count)| (call.clone(), *count)).collect()
    }
}
