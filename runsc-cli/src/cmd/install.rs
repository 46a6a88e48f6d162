//! `runsc install` and `runsc uninstall`: the entry in Docker's configuration.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::cli::{Install, Uninstall};

/// Flags that Docker needs, which are not the defaults: their names, and the flags.
const FOR_DOCKER: [(&str, &str); 2] =
    [("overlay2", "--overlay2=none"), ("file-access", "--file-access=shared")];

/// Adds the entry.
pub fn install(args: &Install) -> Result<i32> {
    let program = std::env::current_exe().context("the path of this program")?;
    let mut config = read(&args.entry.config_file)?;
    add(&mut config, args, &program)?;
    write(&args.entry.config_file, &config)?;
    eprintln!(
        "runsc: runtime {:?} is in {:?} now; dockerd reads it when it starts",
        args.entry.runtime, args.entry.config_file
    );
    Ok(0)
}

/// Removes the entry.
pub fn uninstall(args: &Uninstall) -> Result<i32> {
    let mut config = read(&args.config_file)?;
    let runtimes = config.get_mut("runtimes").and_then(Value::as_object_mut);
    if runtimes.and_then(|runtimes| runtimes.remove(&args.runtime)).is_none() {
        bail!("runtime {:?} not found in {:?}", args.runtime, args.config_file);
    }
    write(&args.config_file, &config)?;
    Ok(0)
}

fn add(config: &mut Map<String, Value>, args: &Install, program: &Path) -> Result<()> {
    let runtimes = config.entry("runtimes").or_insert_with(|| json!({}));
    let runtimes = runtimes.as_object_mut().ok_or_else(|| anyhow!("runtimes is no object"))?;
    if args.clobber || !runtimes.contains_key(&args.entry.runtime) {
        let mut entry = json!({"path": program});
        let mut flags = args.args.strip_prefix(&["--".to_owned()]).unwrap_or(&args.args).to_vec();
        // Docker wants to find in the container's layer what its programs have written.
        for (name, flag) in FOR_DOCKER {
            if !flags.iter().any(|given| given.trim_start_matches('-').split('=').next() == Some(name)) {
                flags.push(flag.to_owned());
            }
        }
        entry["runtimeArgs"] = json!(flags);
        runtimes.insert(args.entry.runtime.clone(), entry);
    }
    if args.experimental {
        config.insert("experimental".into(), true.into());
    }
    if !args.userland_proxy {
        config.insert("userland-proxy".into(), false.into());
    }
    if !args.cgroupdriver.is_empty() {
        let options = config.entry("exec-opts").or_insert_with(|| json!([]));
        let options = options.as_array_mut().ok_or_else(|| anyhow!("exec-opts is no array"))?;
        if args.clobber {
            options.retain(|option| !option.as_str().is_some_and(|o| o.starts_with("native.cgroupdriver=")));
        }
        options.push(format!("native.cgroupdriver={}", args.cgroupdriver).into());
    }
    Ok(())
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    match fs::read(path) {
        Ok(text) if text.trim_ascii().is_empty() => Ok(Map::new()),
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {path:?}")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error).with_context(|| format!("reading {path:?}")),
    }
}

/// In one step, with what was there before beside it under a name that ends with a tilde.
fn write(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name
    };
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        match fs::copy(path, beside("~")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write(beside(".new"), serde_json::to_string_pretty(config)? + "\n")?;
        fs::rename(beside(".new"), path)
    };
    write().with_context(|| format!("writing {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb, normalise};
    use clap::Parser;

    fn parse(line: &str) -> Verb {
        Cli::parse_from(normalise(line.split(' ').map(Into::into)).args).verb
    }

    #[test]
    fn an_entry_comes_and_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker/daemon.json");
        let file = path.to_str().unwrap();
        let run = |line: String| match parse(&line) {
            Verb::Install(args) => install(&args),
            Verb::Uninstall(args) => uninstall(&args),
            _ => panic!("{line}"),
        };
        run(format!(
            "runsc install --config_file {file} --cgroupdriver cgroupfs -- --debug -overlay2=root:memory"
        ))
        .unwrap();
        let config = read(&path).unwrap();
        let flags = &config["runtimes"]["runsc"]["runtimeArgs"];
        assert_eq!(*flags, json!(["--debug", "-overlay2=root:memory", "--file-access=shared"]));
        assert_eq!(config["userland-proxy"], false);
        assert_eq!(config["exec-opts"], json!(["native.cgroupdriver=cgroupfs"]));
        fs::write(&path, r#"{"runtimes": {"runsc": {"path": "/old"}}, "dns": ["1.1.1.1"]}"#).unwrap();
        run(format!("runsc install --config_file={file} --clobber=false")).unwrap();
        assert_eq!(read(&path).unwrap()["runtimes"]["runsc"]["path"], "/old");
        run(format!("runsc install --config_file={file} --runtime other")).unwrap();
        run(format!("runsc uninstall --config_file={file}")).unwrap();
        let config = read(&path).unwrap();
        assert_eq!(config["dns"], json!(["1.1.1.1"]));
        let flags = &config["runtimes"]["other"]["runtimeArgs"];
        assert_eq!(*flags, json!(["--overlay2=none", "--file-access=shared"]));
        assert!(config["runtimes"].get("runsc").is_none() && config["runtimes"].get("other").is_some());
        assert!(run(format!("runsc uninstall --config_file={file}")).is_err());
    }
}
