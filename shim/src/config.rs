//! What an administrator configures: a TOML file with the keys of gVisor's shim, or the options of the runc shim.
//!
//! containerd passes options with each container. They name the file (`ConfigPath`), or hold its contents; without
//! any, `/etc/containerd/runsc.toml` counts if it is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, Message};
use containerd_shim_protos::shim::oci::Options;
use serde::{Deserialize, Serialize};

/// The file that counts when containerd names none.
const DEFAULT_FILE: &str = "/etc/containerd/runsc.toml";
/// Where state is, in a directory for each of containerd's namespaces.
const DEFAULT_ROOT: &str = "/run/containerd/runsc";
/// In the bundle: how `runsc` is called for this container, for those who come after this process.
const SAVED: &str = "runsc-shim.json";

/// The TOML file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    binary_name: Option<String>,
    root: Option<PathBuf>,
    log_path: Option<String>,
    log_level: Option<String>,
    runsc_config: BTreeMap<String, toml::Value>,
    #[serde(flatten)]
    other: BTreeMap<String, toml::Value>,
}

/// How `runsc` is called for one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The `runsc` binary.
    pub binary: PathBuf,
    /// Its state directory.
    pub root: PathBuf,
    /// Its flags besides.
    pub flags: Vec<String>,
    /// Where this shim logs to, with `%ID%` for the container; to containerd if there is none.
    pub log_path: Option<String>,
    /// Whether it logs more.
    pub debug: bool,
    /// Keys of the file that mean nothing here.
    pub unknown: Vec<String>,
}

impl Config {
    /// What containerd's options say, for a container of one of its namespaces.
    pub fn from_options(options: Option<&Any>, namespace: &str) -> Result<Config> {
        let mut file = File::default();
        let mut runc = Options::default();
        match options.map(|any| (any.type_url.rsplit('/').next().unwrap_or(""), any.value.as_slice())) {
            // `ctr run --uidmap` sends those of containerd's first shim, of which none concerns this one.
            None | Some(("" | "containerd.linux.runc.CreateOptions", _)) => {
                if Path::new(DEFAULT_FILE).exists() {
                    file = read_file(Path::new(DEFAULT_FILE))?;
                }
            }
            // The package's name is another one in containerd 1.6.
            Some((url, value)) if url.ends_with("runtimeoptions.v1.Options") => {
                let (path, body) = runtime_options(value).context("the runtime options")?;
                if !body.is_empty() {
                    file = parse(&String::from_utf8(body)?).context("ConfigBody")?;
                } else if !path.is_empty() {
                    file = read_file(Path::new(&path))?;
                } else if Path::new(DEFAULT_FILE).exists() {
                    file = read_file(Path::new(DEFAULT_FILE))?;
                }
            }
            Some(("containerd.runc.v1.Options", value)) => {
                runc = Options::parse_from_bytes(value).context("the runtime options")?;
            }
            Some((url, _)) => bail!("options of type {url:?} are not understood"),
        }
        Config::new(file, &runc, namespace)
    }

    fn new(file: File, runc: &Options, namespace: &str) -> Result<Config> {
        let name = match (&file.binary_name, runc.binary_name.as_str()) {
            (Some(name), _) if !name.is_empty() => name.clone(),
            (_, "") => "runsc".to_owned(),
            (_, name) => name.to_owned(),
        };
        let root = match (&file.root, runc.root.as_str()) {
            (Some(root), _) => root.clone(),
            (None, "") => DEFAULT_ROOT.into(),
            (None, root) => root.into(),
        };
        let mut flags = Vec::new();
        for (key, value) in &file.runsc_config {
            let value = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Boolean(truth) => truth.to_string(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                _ => bail!("runsc_config.{key} is not a plain value"),
            };
            flags.push(format!("--{key}={value}"));
        }
        if runc.systemd_cgroup {
            flags.push("--systemd-cgroup=true".to_owned());
        }
        let debug = matches!(file.log_level.as_deref(), Some("debug" | "trace"));
        Ok(Config {
            binary: find_binary(&name)?,
            root: root.join(namespace),
            flags,
            log_path: file.log_path.filter(|path| !path.is_empty()),
            debug,
            unknown: file.other.into_keys().collect(),
        })
    }

    /// Writes it into a container's bundle.
    pub fn save(&self, bundle: &Path) -> Result<()> {
        let path = bundle.join(SAVED);
        std::fs::write(&path, serde_json::to_vec(self)?).with_context(|| format!("writing {path:?}"))
    }

    /// What [`Config::save`] wrote.
    pub fn load(bundle: &Path) -> Result<Config> {
        let path = bundle.join(SAVED);
        let text = std::fs::read(&path).with_context(|| format!("reading {path:?}"))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {path:?}"))
    }
}

/// The path of a configuration file and the contents of one, as `runtimeoptions.v1.Options` has them.
fn runtime_options(message: &[u8]) -> Result<(String, Vec<u8>)> {
    // Field numbers, shifted by three bits, with the wire type of strings and bytes.
    const TYPE_URL: u32 = 1 << 3 | 2;
    const CONFIG_PATH: u32 = 2 << 3 | 2;
    const CONFIG_BODY: u32 = 3 << 3 | 2;
    let (mut path, mut body) = (String::new(), Vec::new());
    let mut stream = CodedInputStream::from_bytes(message);
    while let Some(tag) = stream.read_raw_tag_or_eof()? {
        match tag {
            TYPE_URL => drop(stream.read_string()?),
            CONFIG_PATH => path = stream.read_string()?,
            CONFIG_BODY => body = stream.read_bytes()?,
            _ => bail!("unknown field {}", tag >> 3),
        }
    }
    Ok((path, body))
}

fn read_file(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path:?}"))?;
    parse(&text).with_context(|| format!("reading {path:?}"))
}

fn parse(text: &str) -> Result<File> {
    Ok(toml::from_str(text)?)
}

/// A binary by its path, or by its name on `$PATH` or beside this program.
fn find_binary(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_absolute() {
        return match path.is_file() {
            true => Ok(path.to_owned()),
            false => Err(anyhow!("there is no {path:?}")),
        };
    }
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search)
        .chain(beside)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_absolute() && candidate.is_file())
        .ok_or_else(|| anyhow!("there is no {name:?} on $PATH or beside this program"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config> {
        Config::new(parse(text)?, &Options::default(), "ns")
    }

    #[test]
    fn keys_of_the_file_become_flags() {
        let config = config(
            "log_path = \"/l/%ID%.log\"\nlog_level = \"debug\"\nroot = \"/r\"\nbinary_name = \"sh\"\ngrouping = true\n\
             [runsc_config]\nplatform = \"ptrace\"\nstrace = true\nnum = 3\n",
        )
        .unwrap();
        assert_eq!(config.flags, ["--num=3", "--platform=ptrace", "--strace=true"]);
        assert_eq!(config.root, Path::new("/r/ns"));
        assert!(config.binary.ends_with("sh") && config.binary.is_absolute());
        assert_eq!((config.log_path.as_deref(), config.debug), (Some("/l/%ID%.log"), true));
        assert_eq!(config.unknown, ["grouping"]);
    }

    #[test]
    fn mistakes_are_told() {
        assert!(
            config("binary_name = \"no-such-program\"").unwrap_err().to_string().contains("no-such-program")
        );
        assert!(config("binary_name = \"/no/such\"").is_err());
        assert!(config("binary_name = \"sh\"\n[runsc_config]\na = [1]").is_err());
        assert!(config("root = ").is_err());
    }

    #[test]
    fn options_name_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runsc.toml");
        std::fs::write(&path, "binary_name = \"sh\"\nroot = \"/r\"\n").unwrap();
        let path = path.to_str().unwrap();
        let mut value = vec![0x0a, 1, b't', 0x12, path.len() as u8];
        value.extend(path.as_bytes());
        for url in ["runtimeoptions.v1.Options", "types.x/cri.runtimeoptions.v1.Options"] {
            let any = Any { type_url: url.into(), value: value.clone(), ..Default::default() };
            assert_eq!(Config::from_options(Some(&any), "ns").unwrap().root, Path::new("/r/ns"));
        }
        let any = Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value: vec![0x12, 9, b'x'],
            ..Default::default()
        };
        assert!(Config::from_options(Some(&any), "ns").is_err());
        let any = Any { type_url: "other".into(), ..Default::default() };
        assert!(Config::from_options(Some(&any), "ns").is_err());
    }

    #[test]
    fn options_of_runc_will_do() {
        let options = Options {
            binary_name: "sh".into(),
            root: "/r".into(),
            systemd_cgroup: true,
            ..Default::default()
        };
        let any = Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Default::default()
        };
        let config = Config::from_options(Some(&any), "ns").unwrap();
        assert_eq!(config.root, Path::new("/r/ns"));
        assert_eq!(config.flags, ["--systemd-cgroup=true"]);
        let url = "containerd.linux.runc.CreateOptions";
        let any = Any { type_url: url.into(), value: vec![0x50, 5, 0x58, 6], ..Default::default() };
        let told = |options| Config::from_options(options, "ns").map_err(|error| error.to_string());
        assert_eq!(told(Some(&any)), told(None));
    }

    #[test]
    fn others_find_it_in_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let config = config("binary_name = \"sh\"").unwrap();
        config.save(dir.path()).unwrap();
        assert_eq!(Config::load(dir.path()).unwrap(), config);
    }
}
