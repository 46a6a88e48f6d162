//! Whose limits hold for a container: its own, those of its pod, and those of the sandbox that it joins.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources, Spec};

/// What a container gets of busy processors that does not say (the kernel's default).
const SHARES: u64 = 1024;

/// The limits of a configuration. Those of a pod, which its managers put into annotations of the sandbox's container
/// because only the sum of its containers is known there, count where the configuration has none.
pub fn limits(spec: &Spec) -> Option<LinuxResources> {
    let own = spec.linux().as_ref().and_then(|linux| linux.resources().clone());
    fill(own, spec.annotations().as_ref().and_then(of_pod))
}

/// The limits of a container in a sandbox: memory and processor time that it does not limit itself are limited by what the
/// sandbox has for all.
pub fn limits_within(spec: &Spec, sandbox: Option<&Spec>) -> Option<LinuxResources> {
    let above = sandbox.and_then(limits).map(|above| {
        let memory = memory_limit(&above).map(with_memory);
        let cpu = quota(&above).map(|quota| with_quota(quota, period(&above)));
        resources(memory, cpu)
    });
    fill(limits(spec), above)
}

/// What holds for a container because of its sandbox, where it has no limit of its own, written so that it can be set
/// whatever held before: -1 is no limit.
pub fn inherited(spec: &Spec, sandbox: &Spec) -> LinuxResources {
    let (own, above) = (limits(spec).unwrap_or_default(), limits(sandbox).unwrap_or_default());
    let memory = memory_limit(&own).is_none().then(|| with_memory(memory_limit(&above).unwrap_or(-1)));
    let cpu = quota(&own).is_none().then(|| with_quota(quota(&above).unwrap_or(-1), period(&above)));
    resources(memory, cpu)
}

/// What a container gets of busy processors.
pub fn shares(spec: &Spec) -> u64 {
    let limits = limits(spec);
    let shares = limits.as_ref().and_then(|limits| limits.cpu().as_ref()?.shares());
    shares.filter(|shares| *shares > 0).unwrap_or(SHARES)
}

fn fill(own: Option<LinuxResources>, above: Option<LinuxResources>) -> Option<LinuxResources> {
    match (own, above) {
        (own, None) => own,
        (None, above) => above,
        (Some(mut own), Some(above)) => {
            if memory_limit(&own).is_none()
                && let Some(limit) = memory_limit(&above)
            {
                let mut memory = (*own.memory()).unwrap_or_default();
                memory.set_limit(Some(limit));
                own.set_memory(Some(memory));
            }
            if let (None, Some(of_pod)) = (quota(&own), above.cpu()) {
                let mut cpu = own.cpu().clone().unwrap_or_default();
                cpu.set_quota(of_pod.quota());
                cpu.set_period(of_pod.period());
                if of_pod.shares().is_some() {
                    cpu.set_shares(of_pod.shares());
                }
                own.set_cpu(Some(cpu));
            }
            Some(own)
        }
    }
}

fn memory_limit(resources: &LinuxResources) -> Option<i64> {
    resources.memory().and_then(|memory| memory.limit()).filter(|limit| *limit > 0)
}

fn quota(resources: &LinuxResources) -> Option<i64> {
    resources.cpu().as_ref().and_then(|cpu| cpu.quota()).filter(|quota| *quota > 0)
}

fn period(resources: &LinuxResources) -> Option<u64> {
    resources.cpu().as_ref().and_then(|cpu| cpu.period())
}

fn with_memory(limit: i64) -> LinuxMemory {
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(limit));
    memory
}

fn with_quota(quota: i64, period: Option<u64>) -> LinuxCpu {
    let mut cpu = LinuxCpu::default();
    cpu.set_quota(Some(quota)).set_period(period);
    cpu
}

fn resources(memory: Option<LinuxMemory>, cpu: Option<LinuxCpu>) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_devices(None).set_memory(memory).set_cpu(cpu);
    resources
}

/// What containerd's annotations say about a whole pod.
fn of_pod(annotations: &HashMap<String, String>) -> Option<LinuxResources> {
    let number = |name: &str| {
        let text = annotations.get(&format!("io.kubernetes.cri.sandbox-{name}"))?;
        text.parse::<i64>().ok().filter(|value| *value > 0)
    };
    let (quota, shares) = (number("cpu-quota"), number("cpu-shares"));
    let cpu = (quota.is_some() || shares.is_some()).then(|| {
        let mut cpu = LinuxCpu::default();
        cpu.set_quota(quota);
        cpu.set_period(number("cpu-period").and_then(|period| u64::try_from(period).ok()));
        cpu.set_shares(shares.and_then(|shares| u64::try_from(shares).ok()));
        cpu
    });
    let memory = number("memory").map(with_memory);
    (memory.is_some() || cpu.is_some()).then(|| resources(memory, cpu))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(resources: Value, annotations: Value) -> Spec {
        let spec =
            json!({"ociVersion": "1.2.0", "annotations": annotations, "linux": {"resources": resources}});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_container_has_no_more_than_its_sandbox() {
        let sandbox = spec(
            json!({"cpu": {"shares": 2}}),
            json!({"io.kubernetes.cri.sandbox-memory": "4096", "io.kubernetes.cri.sandbox-cpu-quota": "50000"}),
        );
        let own = spec(json!({"memory": {"limit": 1024}, "cpu": {"shares": 7, "quota": 9000}}), json!({}));
        let within = limits_within(&own, Some(&sandbox)).unwrap();
        assert_eq!((memory_limit(&within), quota(&within), shares(&own)), (Some(1024), Some(9000), 7));
        let none = spec(json!({"memory": {"swap": -1}, "cpu": {"shares": 7}}), json!({}));
        let within = limits_within(&none, Some(&sandbox)).unwrap();
        assert_eq!((memory_limit(&within), quota(&within)), (Some(4096), Some(50000)));
        assert_eq!(within.memory().unwrap().swap(), Some(-1));
        assert_eq!(within.cpu().as_ref().unwrap().shares(), Some(7));
        assert!(inherited(&own, &sandbox).memory().is_none() && inherited(&own, &sandbox).cpu().is_none());
        let lifted = inherited(&none, &spec(json!({}), json!({})));
        assert_eq!(lifted.memory().unwrap().limit(), Some(-1));
        assert_eq!(lifted.cpu().as_ref().unwrap().quota(), Some(-1));
        assert_eq!(shares(&spec(json!({}), json!({}))), SHARES);
    }
}
