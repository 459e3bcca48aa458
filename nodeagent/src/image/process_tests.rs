//! Table tests of Kubernetes' rules for command, args, env and user.

use super::*;
use crate::image::config::{Group, User};

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn image() -> ImageConfig {
    let user = |name: &str, uid, gid| User { name: name.into(), uid, gid, home: format!("/home/{name}") };
    let group =
        |name: &str, gid, members: &[&str]| Group { name: name.into(), gid, members: strings(members) };
    ImageConfig {
        entrypoint: strings(&["/ep"]),
        cmd: strings(&["cmd"]),
        env: strings(&["PATH=/bin", "A=image"]),
        users: vec![user("root", 0, 0), user("web", 33, 34)],
        groups: vec![group("root", 0, &[]), group("www", 34, &[]), group("log", 40, &["web"])],
        ..Default::default()
    }
}

fn check_argv(image: &ImageConfig, command: &[&str], args: &[&str], expected: &[&str]) {
    let overrides = ProcessOverrides { command: strings(command), args: strings(args), ..Default::default() };
    match resolve_process(image, &overrides) {
        Ok(process) => assert_eq!(process.argv, expected, "{command:?} {args:?}"),
        Err(error) => assert_eq!((error, expected), (ProcessError::NoCommand, [].as_slice())),
    }
}

#[test]
fn command_and_args() {
    let both = image();
    check_argv(&both, &[], &[], &["/ep", "cmd"]);
    check_argv(&both, &["/c"], &[], &["/c"]);
    check_argv(&both, &[], &["a"], &["/ep", "a"]);
    check_argv(&both, &["/c"], &["a"], &["/c", "a"]);
    let only_cmd = ImageConfig { entrypoint: vec![], ..image() };
    check_argv(&only_cmd, &[], &[], &["cmd"]);
    check_argv(&only_cmd, &[], &["a"], &["a"]);
    check_argv(&ImageConfig::default(), &[], &[], &[]);
}

#[test]
fn env_is_merged_in_place_and_expanded_from_the_pods_own() {
    let env = [("A", "pod"), ("B", "$(A)-$(PATH)-$$(A)-$(C)$"), ("C", "c")];
    let overrides = ProcessOverrides {
        env: env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        args: strings(&["$(B)", "$(NO)", "$("]),
        hostname: "web-0".into(),
        ..Default::default()
    };
    let process = resolve_process(&image(), &overrides).expect("runs");
    assert_eq!(
        process.env,
        ["PATH=/bin", "HOSTNAME=web-0", "HOME=/home/root", "A=pod", "B=pod-$(PATH)-$(A)-$(C)$", "C=c"]
    );
    assert_eq!(process.argv, ["/ep", "pod-$(PATH)-$(A)-$(C)$", "$(NO)", "$("]);
}

#[test]
fn an_image_without_env_gets_a_path() {
    let config = ImageConfig { cmd: strings(&["x"]), ..Default::default() };
    assert_eq!(resolve_process(&config, &ProcessOverrides::default()).expect("runs").env, [DEFAULT_PATH]);
}

fn check_user(user: &str, run_as: (Option<u32>, Option<u32>), expected: Result<(u32, u32, &[u32]), &str>) {
    let image = ImageConfig { user: user.into(), ..image() };
    let overrides = ProcessOverrides { run_as_user: run_as.0, run_as_group: run_as.1, ..Default::default() };
    let got = resolve_process(&image, &overrides);
    let got = got.map(|p| (p.uid, p.gid, p.additional_gids)).map_err(|e| e.to_string());
    match expected {
        Ok((uid, gid, additional)) => assert_eq!(got, Ok((uid, gid, additional.to_vec())), "{user}"),
        Err(text) => assert!(got.as_ref().is_err_and(|e| e.starts_with(text)), "{user}: {got:?}"),
    }
}

#[test]
fn users() {
    let none = (None, None);
    check_user("", none, Ok((0, 0, &[])));
    check_user("web", none, Ok((33, 34, &[40])));
    check_user("33", none, Ok((33, 34, &[40])));
    check_user("1000", none, Ok((1000, 0, &[])));
    check_user("1000:1001", none, Ok((1000, 1001, &[])));
    check_user("web:log", none, Ok((33, 40, &[])));
    check_user("nobody", none, Err("User \"nobody\" is not in the image's /etc/passwd"));
    check_user("web:staff", none, Err("Group \"staff\" is not in the image's /etc/group"));
    check_user("nobody:staff", (Some(33), None), Ok((33, 34, &[40])));
    check_user("web", (Some(5), Some(6)), Ok((5, 6, &[])));
    check_user("web", (None, Some(0)), Ok((33, 0, &[40])));
}

#[test]
fn working_dir() {
    let check = |image_dir: &str, pod_dir: Option<&str>, expected: Result<&str, ()>| {
        let image = ImageConfig { working_dir: image_dir.into(), ..image() };
        let overrides = ProcessOverrides { working_dir: pod_dir.map(Into::into), ..Default::default() };
        let got = resolve_process(&image, &overrides).map(|p| p.working_dir).map_err(|_| ());
        assert_eq!(got, expected.map(Into::into));
    };
    check("", None, Ok("/"));
    check("/app", None, Ok("/app"));
    check("/app", Some("/srv"), Ok("/srv"));
    check("app", None, Err(()));
}
