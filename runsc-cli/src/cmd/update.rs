//! `runsc update`: other limits for a container.

use std::io::Read;

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Map, Value, json};

use crate::boot::limits::Limits;
use crate::cgroup;
use crate::cli::Update;
use crate::container::{self, Runtime};
use crate::control::Client;
use crate::spec;
use crate::state::{State, Status};

/// Sets them, and remembers them in the container's configuration.
pub fn update(runtime: &Runtime, args: &Update) -> Result<i32> {
    let container = runtime.root.open(&args.id)?;
    let state = container.state()?.ok_or_else(|| anyhow!("it was never created"))?;
    if state.status() == Status::Stopped {
        bail!("container not running");
    }
    let changes = match &args.resources {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).context("reading standard input")?;
            serde_json::from_slice(&text).context("reading standard input")?
        }
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("opening {path:?}"))?;
            serde_json::from_slice(&text).with_context(|| format!("reading {path:?}"))?
        }
        None => of_flags(args),
    };
    let changed: LinuxResources = serde_json::from_value(relevant(&changes)).context("resources")?;
    let spec = container::saved_spec(&container)?;
    let merged = merge(&spec, relevant(&changes))?;
    let sandbox = state.sandbox.as_ref().map(|id| container::read_spec(&runtime.root.directory(id)));
    let sandbox = sandbox.transpose()?;
    if let Some(cgroup) = container::read_cgroup(&container.path)? {
        cgroup.set(&changed, runtime.options.cgroups)?;
    }
    container.write("config.json", &serde_json::to_vec(&merged)?)?;
    match (&sandbox, &state.sandbox) {
        (Some(sandbox), Some(id)) => {
            inherit(runtime, &state, &merged, sandbox)?;
            runtime.weigh(id);
        }
        _ => {
            Client::connect(&runtime.root.address(&state))?.limit(Limits::of(&merged, None))?;
            let members = runtime.members(&state.id);
            for member in &members {
                // One that ends meanwhile has no use for it.
                let Ok(spec) = container::read_spec(&runtime.root.directory(&member.id)) else { continue };
                if let Err(error) = inherit(runtime, member, &spec, &merged) {
                    crate::report::warn(&crate::report::line(&error));
                }
            }
            if !members.is_empty() {
                runtime.weigh(&state.id);
            }
        }
    }
    Ok(0)
}

/// Has what a sandbox limits hold for a container in it that does not limit it, and shows the container its limits.
fn inherit(runtime: &Runtime, member: &State, spec: &Spec, sandbox: &Spec) -> Result<()> {
    let inherited = cgroup::inherited(spec, sandbox);
    let limits_any = inherited.memory().is_some() || inherited.cpu().is_some();
    if let (true, Some(cgroup)) = (limits_any, container::read_cgroup(&runtime.root.directory(&member.id))?) {
        cgroup.set(&inherited, runtime.options.cgroups)?;
    }
    Client::connect(&runtime.root.address(member))?.limit(Limits::of(spec, Some(sandbox)))
}

/// What can be changed; devices and the like are fixed, as in runc.
fn relevant(changes: &Value) -> Value {
    let kept = ["memory", "cpu", "pids", "blockIO", "hugepageLimits", "unified"];
    let members = changes.as_object().into_iter().flatten();
    let members = members.filter(|(name, value)| kept.contains(&name.as_str()) && !value.is_null());
    Value::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn of_flags(args: &Update) -> Value {
    let object = |members: &[(&str, Option<Value>)]| {
        let members = members.iter().filter_map(|(name, value)| Some((name.to_string(), value.clone()?)));
        members.collect::<Map<_, _>>()
    };
    let number = |value: Option<i64>| value.map(Value::from);
    let natural = |value: Option<u64>| value.map(Value::from);
    let mut changes = Map::new();
    for (name, members) in [
        (
            "cpu",
            object(&[
                ("period", natural(args.cpu_period)),
                ("quota", number(args.cpu_quota)),
                ("burst", natural(args.cpu_burst)),
                ("shares", natural(args.cpu_share)),
                ("realtimePeriod", natural(args.cpu_rt_period)),
                ("realtimeRuntime", number(args.cpu_rt_runtime)),
                ("idle", number(args.cpu_idle)),
                ("cpus", args.cpuset_cpus.clone().map(Value::from)),
                ("mems", args.cpuset_mems.clone().map(Value::from)),
            ]),
        ),
        (
            "memory",
            object(&[
                ("limit", number(args.memory)),
                ("reservation", number(args.memory_reservation)),
                ("swap", number(args.memory_swap)),
            ]),
        ),
        ("pids", object(&[("limit", number(args.pids_limit))])),
        ("blockIO", object(&[("weight", args.blkio_weight.map(Value::from))])),
    ] {
        if !members.is_empty() {
            changes.insert(name.into(), Value::Object(members));
        }
    }
    Value::Object(changes)
}

/// The configuration with changed resources.
fn merge(spec: &Spec, changes: Value) -> Result<Spec> {
    let mut config = serde_json::to_value(spec)?;
    let root = config.as_object_mut().ok_or_else(|| anyhow!("config.json is no object"))?;
    let linux = root.entry("linux").or_insert_with(|| json!({}));
    let linux = linux.as_object_mut().ok_or_else(|| anyhow!("linux is no object"))?;
    merge_into(linux.entry("resources").or_insert_with(|| json!({})), changes);
    spec::parse(config.to_string().as_bytes())
}

fn merge_into(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                merge_into(old.entry(name).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.2.0",
            "linux": {"resources": {"cpu": {"shares": 5, "quota": 1000}, "devices": [{"allow": false}]}}
        }))
        .unwrap();
        let changes = json!({"cpu": {"quota": 2000}, "pids": {"limit": 3}, "devices": [], "memory": null});
        let merged = serde_json::to_value(merge(&spec, relevant(&changes)).unwrap()).unwrap();
        let resources = &merged["linux"]["resources"];
        assert_eq!(resources["cpu"]["shares"], 5);
        assert_eq!(resources["cpu"]["quota"], 2000);
        assert_eq!(resources["pids"]["limit"], 3);
        assert_eq!(resources["devices"].as_array().unwrap().len(), 1);
    }
}
