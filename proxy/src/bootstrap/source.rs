//! Where a bootstrap file is: on disk, or as text in an environment variable, as in a pod, whose containers then share it
//! without a volume.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Bootstrap, BootstrapError};

/// The variable that is looked at when nothing is said.
const VARIABLE: &str = "SELVEDGE_CONFIG";

/// Where a bootstrap file is; in the variable `SELVEDGE_CONFIG` when neither is named.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub struct Source {
    /// The bootstrap file (YAML, see docs/sidecar.md).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The environment variable that holds the text of the bootstrap file; SELVEDGE_CONFIG when nothing is named.
    #[arg(long, value_name = "NAME")]
    pub config_env: Option<String>,
}

impl Source {
    /// Reads and checks it.
    ///
    /// # Errors
    /// It is not there, or not valid.
    pub fn load(&self) -> Result<Bootstrap, BootstrapError> {
        if let Some(path) = &self.config {
            return Bootstrap::load(path);
        }
        let variable = self.config_env.as_deref().unwrap_or(VARIABLE);
        let path = PathBuf::from(format!("${variable}"));
        match std::env::var(variable) {
            Ok(text) => Bootstrap::parse(&text, &path),
            Err(problem) => Err(unset(problem, self.config_env.is_none(), &path)),
        }
    }
}

fn unset(problem: std::env::VarError, is_default: bool, path: &Path) -> BootstrapError {
    let hint = if is_default { "; name the file with --config FILE" } else { "" };
    let source = io::Error::other(format!("{problem}{hint}"));
    BootstrapError::Read { path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_set_is_named_with_what_to_do() {
        let text = |error: BootstrapError| format!("{error}: {}", std::error::Error::source(&error).unwrap());
        let missing = Source { config_env: Some("SELVEDGE_NO_SUCH_VARIABLE".into()), ..Source::default() };
        let message = text(missing.load().unwrap_err());
        assert!(message.contains("$SELVEDGE_NO_SUCH_VARIABLE") && message.contains("not found"), "{message}");
        let nothing = text(unset(std::env::VarError::NotPresent, true, Path::new("$SELVEDGE_CONFIG")));
        assert!(nothing.contains("--config FILE"), "{nothing}");
    }
}
