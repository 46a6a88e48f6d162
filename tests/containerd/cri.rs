//! A pod by the Container Runtime Interface, as a kubelet asks for it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::daemon::{Containerd, eventually, text};
use crate::image;
use crate::stream::{STDERR, STDOUT, Stream};

#[allow(missing_docs, clippy::all, reason = "generated")]
mod api {
    tonic::include_proto!("runtime.v1");
}

use api::runtime_service_client::RuntimeServiceClient;

struct Kubelet {
    runtime: tokio::runtime::Runtime,
    client: RuntimeServiceClient<Channel>,
}

/// One that must succeed.
macro_rules! call {
    ($kubelet:expr, $method:ident, $request:expr) => {{
        let request = $request;
        let mut client = $kubelet.client.clone();
        let what = stringify!($method);
        answer($kubelet.runtime.block_on(client.$method(request)), what)
    }};
}

fn answer<T>(result: Result<Response<T>, Status>, what: &str) -> T {
    match result {
        Ok(response) => response.into_inner(),
        Err(status) => panic!("{what}: {}", status.message()),
    }
}

impl Kubelet {
    fn new(daemon: &Containerd) -> Kubelet {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = format!("unix://{}", daemon.socket().display());
        let client = runtime.block_on(async {
            RuntimeServiceClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap())
        });
        Kubelet { runtime, client }
    }

    fn pod(
        &self,
        name: &str,
        logs: &Path,
        resources: Option<api::LinuxContainerResources>,
    ) -> (String, api::PodSandboxConfig) {
        fs::create_dir_all(logs).unwrap();
        let security_context = Some(api::LinuxSandboxSecurityContext { namespace_options: Some(NAMESPACES) });
        let config = api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{}", std::process::id()),
                namespace: "default".into(),
                attempt: 0,
            }),
            log_directory: logs.display().to_string(),
            labels: HashMap::new(),
            linux: Some(api::LinuxPodSandboxConfig {
                cgroup_parent: String::new(),
                security_context,
                resources,
            }),
            ..Default::default()
        };
        let request =
            api::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "runsc".into() };
        (call!(self, run_pod_sandbox, request).pod_sandbox_id, config)
    }

    fn container(
        &self,
        pod: &str,
        config: &api::PodSandboxConfig,
        name: &str,
        script: &str,
        volume: &Path,
        resources: Option<api::LinuxContainerResources>,
    ) -> String {
        let container = api::ContainerConfig {
            mounts: vec![api::Mount {
                container_path: "/shared".into(),
                host_path: volume.display().to_string(),
                readonly: false,
            }],
            linux: Some(api::LinuxContainerConfig {
                resources,
                security_context: Some(api::LinuxContainerSecurityContext {
                    namespace_options: Some(NAMESPACES),
                }),
            }),
            ..shell(name, script)
        };
        self.start(pod, config, container)
    }

    fn start(&self, pod: &str, config: &api::PodSandboxConfig, container: api::ContainerConfig) -> String {
        let request = api::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(container),
            sandbox_config: Some(config.clone()),
        };
        let id = call!(self, create_container, request).container_id;
        call!(self, start_container, api::StartContainerRequest { container_id: id.clone() });
        id
    }

    fn exec(&self, id: &str, script: &str) -> (i32, String, String) {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = api::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 60 };
        let answer = call!(self, exec_sync, request);
        (answer.exit_code, text(&answer.stdout), text(&answer.stderr))
    }

    /// A program with these streams.
    fn exec_stream(&self, id: &str, script: &str, stdin: bool, tty: bool) -> Stream {
        let request = api::ExecRequest {
            container_id: id.to_owned(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            tty,
            stdin,
            stdout: true,
            stderr: !tty,
        };
        Stream::open(&call!(self, exec, request).url)
    }

    /// The streams of a container with a terminal.
    fn attach(&self, id: &str) -> Stream {
        let request = api::AttachRequest {
            container_id: id.to_owned(),
            stdin: true,
            tty: true,
            stdout: true,
            stderr: false,
        };
        Stream::open(&call!(self, attach, request).url)
    }

    fn status(&self, id: &str) -> api::ContainerStatus {
        call!(self, container_status, api::ContainerStatusRequest { container_id: id.to_owned() })
            .status
            .unwrap()
    }
}

/// A container with a program.
fn shell(name: &str, script: &str) -> api::ContainerConfig {
    api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(api::ImageSpec { image: image::BOX.into() }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: format!("{name}.log"),
        linux: Some(api::LinuxContainerConfig {
            resources: None,
            security_context: Some(api::LinuxContainerSecurityContext {
                namespace_options: Some(NAMESPACES),
            }),
        }),
        ..Default::default()
    }
}

/// The host's network, so that no CNI plugin is needed, and a pid namespace for each container.
const NAMESPACES: api::NamespaceOption = api::NamespaceOption {
    network: api::NamespaceMode::Node as i32,
    pid: api::NamespaceMode::Container as i32,
    ipc: api::NamespaceMode::Pod as i32,
};

/// Two containers of a pod in one sandbox.
pub fn pod(daemon: &Containerd) {
    let kubelet = Kubelet::new(daemon);
    let version = call!(kubelet, version, api::VersionRequest::default());
    assert_eq!(version.runtime_name, "containerd");

    let (logs, volume) = (daemon.dir.path().join("pod-logs"), daemon.dir.path().join("pod-volume"));
    fs::create_dir_all(&volume).unwrap();
    let (pod, config) = kubelet.pod("pod", &logs, None);
    let status =
        call!(kubelet, pod_sandbox_status, api::PodSandboxStatusRequest { pod_sandbox_id: pod.clone() });
    assert_eq!(status.status.unwrap().state(), api::PodSandboxState::SandboxReady);

    let server = "echo from a; echo oops >&2; while :; do echo hello | nc -l -p 8123; done";
    let first = kubelet.container(&pod, &config, "a", server, &volume, None);
    let second = kubelet.container(
        &pod,
        &config,
        "b",
        "echo from b; trap 'exit 3' TERM; while :; do sleep 0.1; done",
        &volume,
        None,
    );
    assert_eq!(kubelet.status(&first).state(), api::ContainerState::ContainerRunning);
    // One shim for all.
    assert_eq!(daemon.shims().len(), 1);

    assert_eq!(kubelet.exec(&first, "echo out; echo err >&2; exit 7"), (7, "out\n".into(), "err\n".into()));
    assert_eq!(kubelet.exec(&first, "echo word > /shared/file").0, 0);
    assert_eq!(kubelet.exec(&second, "cat /shared/file"), (0, "word\n".into(), String::new()));
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "word\n");
    // The containers of a pod have one network.
    eventually("b hears a", || {
        (kubelet.exec(&second, "nc 127.0.0.1 8123 < /dev/null").1 == "hello\n").then_some(())
    });

    let log = |name: &str| fs::read_to_string(logs.join(format!("{name}.log"))).unwrap_or_default();
    eventually("the logs are there", || {
        let (a, b) = (log("a"), log("b"));
        let complete =
            a.contains(" stdout F from a") && a.contains(" stderr F oops") && b.contains(" stdout F from b");
        complete.then_some(())
    });
    let stats = call!(kubelet, container_stats, api::ContainerStatsRequest { container_id: first.clone() });
    let memory = stats.stats.unwrap().memory.unwrap().working_set_bytes.unwrap().value;
    assert!(memory > 0);

    call!(kubelet, stop_container, api::StopContainerRequest { container_id: second.clone(), timeout: 30 });
    let status = kubelet.status(&second);
    assert_eq!((status.state(), status.exit_code), (api::ContainerState::ContainerExited, 3));
    // The other one goes on.
    assert_eq!(kubelet.exec(&first, "echo here").1, "here\n");
    call!(kubelet, remove_container, api::RemoveContainerRequest { container_id: second });
    call!(kubelet, stop_container, api::StopContainerRequest { container_id: first.clone(), timeout: 0 });
    assert_eq!(kubelet.status(&first).exit_code, 137);
    call!(kubelet, stop_pod_sandbox, api::StopPodSandboxRequest { pod_sandbox_id: pod.clone() });
    call!(kubelet, remove_pod_sandbox, api::RemovePodSandboxRequest { pod_sandbox_id: pod });
}

/// What `kubectl exec` and `kubectl attach` do: programs whose streams containerd carries.
pub fn pod_streams(daemon: &Containerd) {
    let kubelet = Kubelet::new(daemon);
    let logs = daemon.dir.path().join("streams-logs");
    let (pod, config) = kubelet.pod("streams", &logs, None);
    let terminal = "while read line; do eval \"$line\"; done; exit 4";
    let with_terminal = api::ContainerConfig { stdin: true, tty: true, ..shell("terminal", terminal) };
    let id = kubelet.start(&pod, &config, with_terminal);

    let script = "echo out; echo err >&2; exit 7";
    let output = kubelet.exec_stream(&id, script, false, false).end();
    assert_eq!(output, ("out\n".into(), "err\n".into(), 7));
    // Nothing of much output is lost at the end.
    let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789 $i; i=$((i+1)); done";
    let (lines, _, code) = kubelet.exec_stream(&id, script, false, false).end();
    assert_eq!((lines.lines().count(), lines.ends_with(" 19999\n"), code), (20000, true, 0));

    // Standard input, and its end, which that of the connection is.
    let mut stream =
        kubelet.exec_stream(&id, "read a; echo got $a; echo $a >&2; read a; exit $a", true, false);
    stream.type_line("word");
    stream.expect(STDOUT, "got word\n");
    stream.expect(STDERR, "word\n");
    stream.type_line("9");
    assert_eq!(stream.end(), (String::new(), String::new(), 9));
    let mut stream =
        kubelet.exec_stream(&id, "echo up; cat > /tmp/typed; echo end >> /tmp/typed", true, false);
    stream.expect(STDOUT, "up\n");
    stream.type_line("typed");
    drop(stream);
    eventually("cat has read all", || {
        (kubelet.exec(&id, "cat /tmp/typed").1 == "typed\nend\n").then_some(())
    });

    // A terminal, and its size.
    let script = "tty; read a; until [ \"$(stty size)\" = \"33 99\" ]; do sleep 0.1; done; echo $a; exit 5";
    let mut stream = kubelet.exec_stream(&id, script, true, true);
    stream.expect(STDOUT, "/dev/pts/");
    stream.resize(33, 99);
    stream.type_line("word");
    stream.expect(STDOUT, "word\r\nword\r\n");
    assert_eq!(stream.end(), (String::new(), String::new(), 5));

    // The container's own terminal, twice.
    let mut stream = kubelet.attach(&id);
    stream.type_line("stty -echo; a=$((40+2)); echo a is $a");
    stream.expect(STDOUT, "a is 42\r\n");
    drop(stream);
    let mut stream = kubelet.attach(&id);
    stream.resize(22, 88);
    stream.type_line("until [ \"$(stty size)\" = \"22 88\" ]; do sleep 0.1; done; echo a was $a");
    stream.expect(STDOUT, "a was 42\r\n");
    stream.type_line("exit 3");
    eventually("the container has ended", || {
        (kubelet.status(&id).state() == api::ContainerState::ContainerExited).then_some(())
    });
    assert_eq!(kubelet.status(&id).exit_code, 3);
    call!(kubelet, stop_pod_sandbox, api::StopPodSandboxRequest { pod_sandbox_id: pod.clone() });
    call!(kubelet, remove_pod_sandbox, api::RemovePodSandboxRequest { pod_sandbox_id: pod });
}

/// Limits of containers, those of their pod, their change, and what happens when memory does not suffice.
pub fn pod_limits(daemon: &Containerd) {
    let kubelet = Kubelet::new(daemon);
    let (logs, volume) = (daemon.dir.path().join("limits-logs"), daemon.dir.path().join("limits-volume"));
    fs::create_dir_all(&volume).unwrap();
    let of_pod = api::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 100_000,
        memory_limit_in_bytes: 512 << 20,
        ..Default::default()
    };
    let (pod, config) = kubelet.pod("limits", &logs, Some(of_pod));
    let limits = api::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    };
    let limited = kubelet.container(&pod, &config, "limited", "sleep 1000", &volume, Some(limits));
    let free = kubelet.container(&pod, &config, "free", "sleep 1000", &volume, None);
    let seen = |id: &str| {
        let script =
            "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo; cat /sys/fs/cgroup/cpu.max";
        let words = kubelet.exec(id, script).1;
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(seen(&limited), "1 MemTotal: 65536 kB 50000 100000");
    assert_eq!(seen(&free), "1 MemTotal: 524288 kB 100000 100000");
    let more = api::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 75_000,
        memory_limit_in_bytes: 128 << 20,
        ..Default::default()
    };
    let request = api::UpdateContainerResourcesRequest { container_id: limited.clone(), linux: Some(more) };
    call!(kubelet, update_container_resources, request);
    assert_eq!(seen(&limited), "1 MemTotal: 131072 kB 75000 100000");
    // Two that want 40 MiB each and more, of 64 that there are. They fill it by themselves: memory that a system call is just
    // filling is not free at once when the process is killed, so that a third one may be.
    let eater =
        r#"awk 'BEGIN { s = "0123456789abcdef"; while (length(s) < 40000000) s = s s; while (1) t = s }'"#;
    let script = format!("{eater} & {eater}; wait; exit 9");
    let hungry = kubelet.container(&pod, &config, "hungry", &script, &volume, Some(limits));
    eventually("a kill for want of memory is told", || {
        let status = kubelet.status(&hungry);
        (status.state() == api::ContainerState::ContainerExited && status.reason == "OOMKilled").then_some(())
    });
    assert_eq!(kubelet.status(&hungry).exit_code, 9);
    for id in [&limited, &free] {
        let status = kubelet.status(id);
        assert_eq!((status.state(), status.reason.as_str()), (api::ContainerState::ContainerRunning, ""));
    }
    call!(kubelet, stop_pod_sandbox, api::StopPodSandboxRequest { pod_sandbox_id: pod.clone() });
    call!(kubelet, remove_pod_sandbox, api::RemovePodSandboxRequest { pod_sandbox_id: pod });
}
