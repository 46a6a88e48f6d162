//! The command line by which containerd calls a shim: flags of Go's form, then perhaps an action.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

/// What a call is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Serve the Task API: what `start` runs in the background.
    #[default]
    Serve,
    /// Print the address of the shim that serves a container.
    Start,
    /// Remove what a dead shim left.
    Delete,
    /// Describe the runtime.
    Info,
    /// Print the version.
    Version,
}

/// A command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub action: Action,
    /// containerd's namespace, in which ids are unique.
    pub namespace: String,
    /// The container.
    pub id: String,
    /// containerd's main socket.
    pub address: String,
    /// The container's bundle, where that is not the working directory.
    pub bundle: Option<PathBuf>,
    /// Log more.
    pub debug: bool,
}

impl Args {
    /// Reads the arguments after the program's name.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Args> {
        let mut parsed = Args::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                parsed.action = match arg.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => bail!("unknown action {arg:?}"),
                };
                break;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "debug" => parsed.debug = inline.as_deref() != Some("false"),
                "v" | "version" => parsed.action = Action::Version,
                "info" => parsed.action = Action::Info,
                "namespace" | "id" | "address" | "bundle" | "publish-binary" | "socket" => {
                    let value =
                        inline.or_else(|| args.next()).ok_or_else(|| anyhow!("-{name} needs a value"))?;
                    match name {
                        "namespace" => parsed.namespace = value,
                        "id" => parsed.id = value,
                        "address" => parsed.address = value,
                        "bundle" => parsed.bundle = Some(value.into()),
                        // Events go over containerd's socket; the server's own socket is given as a descriptor.
                        _ => {}
                    }
                }
                _ => bail!("unknown flag {arg:?}"),
            }
        }
        let needs_container = matches!(parsed.action, Action::Serve | Action::Start | Action::Delete);
        if needs_container && (parsed.namespace.is_empty() || parsed.id.is_empty()) {
            bail!("-namespace and -id are needed: this program is called by containerd");
        }
        if parsed.id.contains('/') || parsed.namespace.contains('/') || parsed.id == ".." {
            bail!("{:?} in {:?} is no container", parsed.id, parsed.namespace);
        }
        Ok(parsed)
    }

    /// The container's bundle.
    pub fn bundle(&self) -> Result<PathBuf> {
        match &self.bundle {
            Some(bundle) if bundle.is_absolute() => Ok(bundle.clone()),
            Some(bundle) => Ok(std::env::current_dir()?.join(bundle)),
            None => Ok(std::env::current_dir()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn containerd_is_understood() {
        let args =
            parse("-namespace k8s.io -address /c.sock -publish-binary /bin/c -id c1 -debug start").unwrap();
        assert_eq!(args.action, Action::Start);
        assert_eq!((args.namespace.as_str(), args.id.as_str(), args.debug), ("k8s.io", "c1", true));
        let args = parse("-namespace=n -id=c1 -bundle /b delete").unwrap();
        assert_eq!((args.action, args.bundle().unwrap()), (Action::Delete, "/b".into()));
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Info);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["", "start", "-namespace n -id a/b start", "-namespace n -id c fly", "-what", "-id"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
