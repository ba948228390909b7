//! The node's configuration: everything under one directory, nothing reachable from another machine.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

use super::Keeping;
use crate::servers::free_port;

/// Enough for trying the system; a process of 1.1 GB in all.
const HEAP: &str = "768m";
/// Each test has keyspaces of its own, and a table takes some 300 KB however little is in it.
const HEAP_OF_TESTS: &str = "3g";
/// Of one of several nodes: three of them are 2.8 GB.
const HEAP_OF_SEVERAL: &str = "512m";
/// The port for other nodes is part of the node's identity, so it stays the same when the node starts again.
const STORAGE_PORT_FILE: &str = "storage_port";

const YAML: &str = r#"cluster_name: chat
num_tokens: 16
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "{seeds}"
listen_address: {host}
rpc_address: {host}
auto_bootstrap: false
storage_port: {storage_port}
native_transport_port: {port}
data_file_directories: ["{dir}/data"]
commitlog_directory: "{dir}/commitlog"
hints_directory: "{dir}/hints"
saved_caches_directory: "{dir}/saved_caches"
cdc_raw_directory: "{dir}/cdc_raw"
commitlog_sync: periodic
commitlog_sync_period: 10000ms
commitlog_segment_size: 8MiB
commitlog_total_space: 256MiB
disk_failure_policy: stop
commit_failure_policy: stop
auto_snapshot: false
incremental_backups: false
trickle_fsync: false
batch_size_warn_threshold: 64KiB
unlogged_batch_across_partitions_warn_threshold: 200
memtable:
  configurations:
    default:
      class_name: TrieMemtable
memtable_allocation_type: {memtable_allocation}
prepared_statements_cache_size: {prepared_statements_cache}
sstable:
  selected_format: bti
storage_compatibility_mode: NONE
default_compaction:
  class_name: UnifiedCompactionStrategy
  parameters:
    scaling_parameters: T4
"#;

const LOGBACK: &str = r#"<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level [%thread] %date{ISO8601} %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <!-- It tells which nodes are there. -->
  <logger name="org.apache.cassandra.gms.Gossiper" level="{gossip_level}"/>
  <root level="WARN"><appender-ref ref="OUT"/></root>
</configuration>
"#;

/// The packages of Java 17 that Cassandra reaches into.
const OPENED: [&str; 20] = [
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.math",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.nio.charset",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/jdk.internal.vm",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];
const EXPORTED: [&str; 13] = [
    "java.base/java.lang.ref",
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.perf",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "jdk.attach/sun.tools.attach",
    "jdk.unsupported/sun.misc",
];

/// One node, and where it finds the others.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) host: Ipv4Addr,
    pub(super) port: u16,
    /// All nodes of the ring, this one among them: none waits for another one at its start.
    pub(super) ring: Vec<Ipv4Addr>,
    pub(super) storage_port: u16,
    pub(super) keeping: Keeping,
}

/// Writes the files; returns Java's arguments before the class path.
pub(super) fn write(dir: &Path, node: &Node) -> Result<Vec<String>> {
    let place = dir.to_str().context("Cassandra's directory must have a name in UTF-8")?;
    let seeds: Vec<_> = node.ring.iter().map(|host| format!("{host}:{}", node.storage_port)).collect();
    let yaml = YAML
        .replace("{seeds}", &seeds.join(","))
        .replace("{host}", &node.host.to_string())
        .replace("{storage_port}", &node.storage_port.to_string())
        .replace("{port}", &node.port.to_string())
        .replace("{memtable_allocation}", memtable_allocation(node.keeping))
        .replace("{prepared_statements_cache}", prepared_statements_cache(node.keeping))
        .replace("{dir}", place);
    fs::write(dir.join("cassandra.yaml"), yaml).with_context(|| format!("{place}/cassandra.yaml"))?;
    let level = if node.is_alone() { "WARN" } else { "INFO" };
    fs::write(dir.join("logback.xml"), LOGBACK.replace("{gossip_level}", level))?;
    Ok(arguments(place, node))
}

impl Node {
    fn is_alone(&self) -> bool {
        self.ring.len() == 1
    }
}

fn arguments(place: &str, node: &Node) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "-Xss256k",
        "-XX:+UseG1GC",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:+PerfDisableSharedMem",
        "-Djava.net.preferIPv4Stack=true",
        "-Djava.awt.headless=true",
        "-Djdk.attach.allowAttachSelf=true",
        "-Dio.netty.tryReflectionSetAccessible=true",
        "-Dcassandra-foreground=yes",
        // Whoever needs the others waits for them.
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
    ]
    .map(str::to_owned)
    .into();
    let (heap, ring_delay_ms) = match node.keeping {
        _ if !node.is_alone() => (HEAP_OF_SEVERAL, 2_000),
        Keeping::Data => (HEAP, 100),
        Keeping::Nothing => (HEAP_OF_TESTS, 100),
    };
    arguments.extend([format!("-Xms{heap}"), format!("-Xmx{heap}")]);
    arguments.push(format!("-Dcassandra.ring_delay_ms={ring_delay_ms}"));
    arguments.push(format!("-Dcassandra.config=file://{place}/cassandra.yaml"));
    arguments.push(format!("-Dcassandra.storagedir={place}"));
    arguments.push(format!("-Dcassandra.logdir={place}"));
    arguments.push(format!("-Dlogback.configurationFile=file://{place}/logback.xml"));
    if node.keeping == Keeping::Nothing {
        // System tables, the schema's among them, are not flushed after each change: a keyspace with five
        // tables in 0.14 s, not 0.4 s.
        arguments.push("-Dcassandra.unsafesystem=true".to_owned());
        // A buffer of half a region or more needs regions of its own in a row, which a heap full of small tables may
        // not have; the largest cells take 1 MiB.
        arguments.push("-XX:G1HeapRegionSize=8m".to_owned());
    }
    for package in OPENED {
        arguments.extend(["--add-opens".to_owned(), format!("{package}=ALL-UNNAMED")]);
    }
    for package in EXPORTED {
        arguments.extend(["--add-exports".to_owned(), format!("{package}=ALL-UNNAMED")]);
    }
    arguments
}

fn memtable_allocation(keeping: Keeping) -> &'static str {
    match keeping {
        Keeping::Data => "heap_buffers",
        // A keyspace per test makes hundreds of small tables. With slabs of 1 MiB each, they fill the heap
        // before anything is flushed.
        Keeping::Nothing => "unslabbed_heap_buffers",
    }
}

fn prepared_statements_cache(keeping: Keeping) -> &'static str {
    match keeping {
        // What it is by default with a small heap.
        Keeping::Data => "10MiB",
        // Each keyspace has statements of its own. Once they are more than fit, one that was prepared a moment ago may be
        // gone, and again when the driver has prepared it anew.
        Keeping::Nothing => "256MiB",
    }
}

/// The node's own, from its last time if there was one.
pub(super) fn storage_port(dir: &Path) -> Result<u16> {
    let path = dir.join(STORAGE_PORT_FILE);
    if let Ok(text) = fs::read_to_string(&path) {
        return text.trim().parse().with_context(|| format!("{}", path.display()));
    }
    let port = free_port()?;
    fs::write(&path, port.to_string()).with_context(|| format!("{}", path.display()))?;
    Ok(port)
}
