//! The files for campaigns on many machines, run as Slurm and Kubernetes would run them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use yaml_rust2::{Yaml, YamlLoader};

/// A file of `docs/campaign`, with engines that every host has.
fn campaign_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/campaign").join(name);
    let text = fs::read_to_string(path).expect("it can be read");
    assert!(text.contains("--cpus interp,host"), "{name}");
    text.replace("--cpus interp,host", "--cpus interp,interp")
}

/// Where commands find `trivium`.
fn path_variable() -> std::ffi::OsString {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_trivium"));
    let mut folders = vec![program.parent().expect("it is in a folder").to_owned()];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    std::env::join_paths(folders).expect("they can be joined")
}

fn run(folder: &Path, program: &str, arguments: &[&str], variables: &[(String, String)]) {
    let output = Command::new(program)
        .args(arguments)
        .envs(variables.iter().cloned())
        .env("PATH", path_variable())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the shell starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn owned(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// How many chunks the logs of a folder have.
fn chunks(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("it can be read");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let logs = paths.filter(|path| path.extension().is_some_and(|e| e == "jsonl"));
    let lines = logs.map(|path| fs::read_to_string(path).expect("it can be read").lines().count());
    // The first line of each is the plan.
    lines.map(|count| count - 1).sum()
}

#[test]
fn a_slurm_array_runs_all_cases_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("slurm.sbatch"), campaign_file("slurm.sbatch")).expect("written");
    for task in ["1", "2"] {
        let variables = owned(&[
            ("CASES", "4000"),
            ("SLURM_ARRAY_TASK_ID", task),
            ("SLURM_ARRAY_TASK_COUNT", "2"),
            ("SLURM_CPUS_PER_TASK", "1"),
        ]);
        run(folder.path(), "bash", &["slurm.sbatch"], &variables);
    }
    assert_eq!(chunks(folder.path()), 4);
}

#[test]
fn an_indexed_kubernetes_job_runs_all_cases_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let documents = YamlLoader::load_from_str(&campaign_file("kubernetes.yaml")).expect("YAML");
    let [job] = documents.as_slice() else { panic!("one document") };
    assert_eq!((job["apiVersion"].as_str(), job["kind"].as_str()), (Some("batch/v1"), Some("Job")));
    let spec = &job["spec"];
    assert_eq!(spec["completionMode"].as_str(), Some("Indexed"));
    let container = &spec["template"]["spec"]["containers"][0];
    let command: Vec<_> =
        container["command"].as_vec().expect("a list").iter().filter_map(Yaml::as_str).collect();
    let [shell, "-c", script] = *command.as_slice() else { panic!("{command:?}") };
    let mounted = container["volumeMounts"][0]["mountPath"].as_str().expect("a path");
    let script = script.replace(mounted, &folder.path().display().to_string());
    let given = container["env"].as_vec().expect("a list");
    let value = |name: &str| {
        let entry = given.iter().find(|entry| entry["name"].as_str() == Some(name));
        entry.and_then(|entry| entry["value"].as_str()).expect("all values are strings").to_owned()
    };
    assert_eq!(Some(value("SHARDS")), spec["completions"].as_i64().map(|n| n.to_string()));
    assert!(value("CASES").parse::<u64>().is_ok() && value("SEED").parse::<u64>().is_ok());
    for pod in ["0", "1"] {
        let few =
            [("CASES", "4000"), ("SEED", "7"), ("SHARDS", "2"), ("JOB_COMPLETION_INDEX", pod)];
        run(folder.path(), shell, &["-c", &script], &owned(&few));
    }
    assert_eq!(chunks(folder.path()), 4);
}
