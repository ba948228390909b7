//! Where Cassandra comes from: no Debian archive has it, Maven Central has the whole server as one artifact
//! with its dependencies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::servers::packages::{self, Lock};

const VERSION: &str = "5.0.8";
/// Cassandra 5.0 runs on Java 17.
const JAVA_VERSION_MIN: u32 = 17;

const POM: &str = r#"<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>chat</groupId>
  <artifactId>cassandra-server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.cassandra</groupId>
      <artifactId>cassandra-all</artifactId>
      <version>VERSION</version>
    </dependency>
  </dependencies>
</project>
"#;

/// The path of a Java that is new enough.
pub(super) fn java() -> Result<PathBuf> {
    let java = packages::require("java", "openjdk-17-jre-headless")?;
    let output = Command::new(&java).arg("-version").output().context("java -version")?;
    let text = String::from_utf8_lossy(&output.stderr);
    match major_version(&text) {
        Some(found) if found >= JAVA_VERSION_MIN => Ok(java),
        found => bail!(
            "Cassandra needs Java {JAVA_VERSION_MIN} or newer, {} is {}",
            java.display(),
            found.map_or("of an unknown version".to_owned(), |version| version.to_string())
        ),
    }
}

/// The directory of the jars, downloaded once per machine.
pub(super) fn jars() -> Result<PathBuf> {
    let target = packages::cache_dir()?.join(format!("cassandra-{VERSION}"));
    if target.is_dir() {
        return Ok(target);
    }
    // The rename alone keeps it whole; the lock saves the second of two runs the download.
    let _lock = Lock::take("cassandra")?;
    if !target.is_dir() {
        let part = target.with_extension("part");
        // What an interrupted download left.
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        eprintln!("downloading Cassandra {VERSION}");
        download(&part).with_context(|| format!("cannot download Cassandra {VERSION} with Maven"))?;
        fs::rename(&part, &target).with_context(|| format!("{}", target.display()))?;
    }
    Ok(target)
}

fn download(into: &Path) -> Result<()> {
    let maven = packages::require("mvn", "maven")?;
    let pom = into.join("pom.xml");
    fs::write(&pom, POM.replace("VERSION", VERSION))?;
    let output = Command::new(maven)
        .args(["-B", "-q", "-f"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", into.display()))
        .stdin(Stdio::null())
        .output()
        .context("mvn")?;
    if !output.status.success() {
        bail!("{}\n{}", output.status, String::from_utf8_lossy(&output.stdout).trim());
    }
    let server = into.join(format!("cassandra-all-{VERSION}.jar"));
    if !server.is_file() {
        bail!("{} is missing", server.display());
    }
    Ok(())
}

/// From `openjdk version "17.0.15" 2025-04-15`; before Java 9 it is `"1.8.0_452"`.
fn major_version(text: &str) -> Option<u32> {
    let quoted = text.split('"').nth(1)?;
    let mut numbers = quoted.split(['.', '-', '_', '+']).map(str::parse);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn java_versions_are_read() {
        assert_eq!(major_version("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK"), Some(17));
        assert_eq!(major_version("openjdk version \"21\" 2023-09-19"), Some(21));
        assert_eq!(major_version("java version \"1.8.0_452\""), Some(8));
        assert_eq!(major_version("openjdk version \"25-ea\" 2025-09-16"), Some(25));
        assert_eq!(major_version("no such command"), None);
    }
}
