//! Probes, hooks, sidecars and security contexts: what is read is printed again, and every mistake.

use bulkhead_manifest::{Names, Source, parse, to_yaml};
use bulkhead_types::{Kind, Name, Object, ObjectId};
use expect_test::{Expect, expect};

fn read(text: &str) -> Result<Vec<Object>, String> {
    let source = Source { name: "a.yaml".to_owned(), text: text.to_owned() };
    let namespace = Name::new("default").expect("a name");
    match parse(&[source], Some(&namespace)) {
        Ok(parsed) => Ok(parsed.into_iter().map(|p| p.object).collect()),
        Err(errors) => Err(errors.iter().map(|e| format!("{e}\n")).collect()),
    }
}

fn no_name(_: Kind, _: ObjectId) -> Option<Name> {
    None
}

/// What is printed reads as what was read; returns it.
fn printed(text: &str) -> String {
    let names = Names { cluster_id: None, name_of: &no_name };
    let objects = read(text).unwrap_or_else(|errors| panic!("{errors}"));
    let one = |object: Object| {
        let printed = to_yaml(&object, names);
        assert_eq!(
            read(&printed).unwrap_or_else(|errors| panic!("{errors}\n{printed}")),
            [object],
            "{printed}"
        );
        printed
    };
    objects.into_iter().map(one).collect()
}

/// A pod whose container and whose spec have more.
fn pod(container: &str, spec: &str) -> String {
    let indented = |text: &str, by: &str| text.lines().map(|l| format!("{by}{l}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n{}  containers:\n  - name: c\n    image: i:1\n{}",
        indented(spec, "  "),
        indented(container, "    ")
    )
}

fn check_refused(container: &str, spec: &str, expected: Expect) {
    let errors = read(&pod(container, spec)).expect_err("a mistake");
    expected.assert_eq(&errors);
}

#[test]
fn examples_are_read_and_printed_again() {
    for (text, words) in [
        (
            include_str!("../../../examples/names.yaml"),
            ["scheme: HTTPS", "setHostnameAsFQDN: true", "- db.shop.example"],
        ),
        (
            include_str!("../../../examples/probes.yaml"),
            ["startupProbe:", "port: http", "failureThreshold: 60"],
        ),
        (
            include_str!("../../../examples/hooks.yaml"),
            ["postStart:", "preStop:", "terminationGracePeriodSeconds: 30"],
        ),
        (
            include_str!("../../../examples/sidecar.yaml"),
            ["restartPolicy: Always", "startupProbe:", "path: /"],
        ),
        (
            include_str!("../../../examples/security.yaml"),
            ["fsGroup: 4000", "type: RuntimeDefault", "- NET_BIND_SERVICE"],
        ),
        (
            include_str!("../../../examples/privileged.yaml"),
            ["- name: kernel.msgmax", "tty: true", "privileged: true"],
        ),
    ] {
        let printed = printed(text);
        for word in words {
            assert!(printed.contains(word), "{word} is not in\n{printed}");
        }
    }
}

/// A container that says nearly everything about how it runs.
const RUNNING: &str = "\
ports: [{name: web, containerPort: 80}]
startupProbe: {grpc: {port: 9000}, initialDelaySeconds: 5}
readinessProbe: {tcpSocket: {port: web, host: localhost}, successThreshold: 2, failureThreshold: 0}
livenessProbe: {grpc: {port: 9000, service: a}, terminationGracePeriodSeconds: 7, timeoutSeconds: 0}
lifecycle:
  postStart: {httpGet: {path: /a?b=c, port: 80, scheme: HTTP, httpHeaders: [{name: A, value: b}]}}
  preStop: {sleep: {seconds: 3}}
terminationMessagePath: /last-words
terminationMessagePolicy: FallbackToLogsOnError
securityContext: {privileged: false, runAsNonRoot: true, seccompProfile: {type: Unconfined}, procMount: Default}
";

#[test]
fn everything_is_printed_as_it_was_read() {
    let expected = expect![[r#"
        spec:
          containers:
          - image: i:1
            imagePullPolicy: IfNotPresent
            lifecycle:
              postStart:
                httpGet:
                  httpHeaders:
                  - name: A
                    value: b
                  path: "/a?b=c"
                  port: 80
                  scheme: HTTP
              preStop:
                sleep:
                  seconds: 3
            livenessProbe:
              failureThreshold: 3
              grpc:
                port: 9000
                service: a
              periodSeconds: 10
              successThreshold: 1
              terminationGracePeriodSeconds: 7
              timeoutSeconds: 1
            name: c
            ports:
            - containerPort: 80
              name: web
              protocol: TCP
            readinessProbe:
              failureThreshold: 3
              periodSeconds: 10
              successThreshold: 2
              tcpSocket:
                host: localhost
                port: web
              timeoutSeconds: 1
            resources: {}
            securityContext:
              runAsNonRoot: true
              seccompProfile:
                type: Unconfined
            startupProbe:
              failureThreshold: 3
              grpc:
                port: 9000
              initialDelaySeconds: 5
              periodSeconds: 10
              successThreshold: 1
              timeoutSeconds: 1
            terminationMessagePath: /last-words
            terminationMessagePolicy: FallbackToLogsOnError
          restartPolicy: Always
          runtimeClassName: rune
          securityContext:
            runAsUser: 1
            supplementalGroups:
            - 1
            - 2
          terminationGracePeriodSeconds: 30
    "#]];
    let text =
        printed(&pod(RUNNING, "securityContext: {runAsUser: 1, supplementalGroups: [1, 2], sysctls: []}"));
    let from = text.find("spec:").expect("a spec");
    let to = text.find("status:").unwrap_or(text.len());
    expected.assert_eq(&text[from..to]);
}

#[test]
fn input_terminal_privileges_and_settings_are_printed_as_they_were_read() {
    let container = "stdin: true\nstdinOnce: true\ntty: true\nsecurityContext: {privileged: true}";
    let text = printed(&pod(container, "securityContext: {sysctls: [{name: kernel/sem, value: 1 2 3 4}]}"));
    for words in [
        "privileged: true",
        "stdin: true",
        "stdinOnce: true",
        "tty: true",
        "name: kernel/sem",
        "value: \"1 2 3 4\"",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}

#[test]
fn mistakes_in_probes_are_named() {
    check_refused(
        "livenessProbe: {}\nreadinessProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}\nstartupProbe: {httpGet: {port: web, host: 10.0.0.1, scheme: https}}",
        "",
        expect![[r#"
            a.yaml:9:20 spec.containers[0].livenessProbe: needs one of exec, httpGet, tcpSocket, grpc
            a.yaml:10:55 spec.containers[0].readinessProbe.tcpSocket: only one of exec, httpGet, tcpSocket, grpc is possible
            a.yaml:11:30 spec.containers[0].startupProbe.httpGet.port: "web" is the name of no port of this container
            a.yaml:11:41 spec.containers[0].startupProbe.httpGet.host: "10.0.0.1" cannot be asked: a pod is asked by its own guest; leave the field out for the pod's own address, or say one of 127.0.0.1, localhost
            a.yaml:11:65 spec.containers[0].startupProbe.httpGet.scheme: "https" is not one of HTTP, HTTPS
        "#]],
    );
    check_refused(
        "livenessProbe: {exec: {}, successThreshold: 2, periodSecond: 1}\n\
         readinessProbe: {grpc: {}, terminationGracePeriodSeconds: 1}\n\
         startupProbe: {httpGet: {port: web, path: a b}, successThreshold: 3, terminationGracePeriodSeconds: 0}",
        "",
        expect![[r#"
            a.yaml:9:21 spec.containers[0].livenessProbe.exec.command: must name a program
            a.yaml:9:31 spec.containers[0].livenessProbe.successThreshold: must be 1 in a livenessProbe
            a.yaml:9:52 spec.containers[0].livenessProbe.periodSecond: unknown field: did you mean "periodSeconds"?
            a.yaml:10:28 spec.containers[0].readinessProbe.grpc.port: is required
            a.yaml:11:30 spec.containers[0].startupProbe.httpGet.port: "web" is the name of no port of this container
            a.yaml:11:41 spec.containers[0].startupProbe.httpGet.path: must begin with '/' and hold printable ASCII without spaces: escape others as %20
            a.yaml:11:53 spec.containers[0].startupProbe.successThreshold: must be 1 in a startupProbe
            a.yaml:11:74 spec.containers[0].startupProbe.terminationGracePeriodSeconds: must be at least 1
        "#]],
    );
    check_refused(
        "livenessProbe: {exec: {command: []}, successThreshold: 2}\n\
         readinessProbe: {grpc: {port: 0}, terminationGracePeriodSeconds: 1}\n\
         startupProbe: {httpGet: {port: web, path: a b}, successThreshold: 3, terminationGracePeriodSeconds: 0}",
        "",
        expect![[r#"
            a.yaml:9:28 spec.containers[0].livenessProbe.exec.command: must name a program
            a.yaml:9:42 spec.containers[0].livenessProbe.successThreshold: must be 1 in a livenessProbe
            a.yaml:10:29 spec.containers[0].readinessProbe.grpc.port: must be between 1 and 65535
            a.yaml:10:39 spec.containers[0].readinessProbe.terminationGracePeriodSeconds: must not be set: the failure of a readinessProbe ends nothing
            a.yaml:11:30 spec.containers[0].startupProbe.httpGet.port: "web" is the name of no port of this container
            a.yaml:11:41 spec.containers[0].startupProbe.httpGet.path: must begin with '/' and hold printable ASCII without spaces: escape others as %20
            a.yaml:11:53 spec.containers[0].startupProbe.successThreshold: must be 1 in a startupProbe
            a.yaml:11:74 spec.containers[0].startupProbe.terminationGracePeriodSeconds: must be at least 1
        "#]],
    );
}

#[test]
fn mistakes_in_hooks_and_rights_are_named() {
    check_refused(
        "lifecycle: {postStart: {tcpSocket: {port: 1}}, preStop: {sleep: {}}}",
        "",
        expect![[r#"
            a.yaml:9:40 spec.containers[0].lifecycle.postStart.tcpSocket: is deprecated, and does nothing in Kubernetes: use exec, httpGet or sleep
            a.yaml:9:69 spec.containers[0].lifecycle.preStop.sleep.seconds: is required
        "#]],
    );
    check_refused(
        "lifecycle: {preStop: {sleep: {seconds: 31}}}\nrestartPolicy: Always",
        "initContainers: [{name: i, image: i, livenessProbe: {exec: {command: [a]}}, lifecycle: {preStop: {sleep: {seconds: 1}}}}, {name: s, image: i, restartPolicy: Never}]",
        expect![[r#"
            a.yaml:6:40 spec.initContainers[0].livenessProbe: is not possible: an init container ends by itself, unless its restartPolicy is Always
            a.yaml:6:91 spec.initContainers[0].lifecycle.preStop: is not possible: an init container ends by itself, unless its restartPolicy is Always
            a.yaml:6:160 spec.initContainers[1].restartPolicy: "Never" is not supported: only Always, in init containers; the pod has the others'
            a.yaml:10:35 spec.containers[0].lifecycle.preStop.sleep.seconds: must be at most terminationGracePeriodSeconds: the container would be killed before
            a.yaml:11:5 spec.containers[0].restartPolicy: is possible in init containers only: the pod has one for the others
        "#]],
    );
    check_refused(
        "securityContext: {privileged: 1, runAsUser: -1, capabilities: {add: [CAP_NET_ADMIN, FLY]}, seLinuxOptions: {level: a}}",
        "securityContext: {sysctls: [{name: a, valu: b}], fsGroup: x, supplementalGroups: [a], seccompProfile: {type: Localhost, localhostProfile: p}}",
        expect![[r#"
            a.yaml:6:31 spec.securityContext.sysctls[0].value: is required
            a.yaml:6:41 spec.securityContext.sysctls[0].valu: unknown field: did you mean "value"?
            a.yaml:6:61 spec.securityContext.fsGroup: expected a whole number, found the string "x"
            a.yaml:6:85 spec.securityContext.supplementalGroups[0]: expected a group from 0 to 2147483647, found the string "a"
            a.yaml:6:112 spec.securityContext.seccompProfile.type: Localhost is not offered: nodes hold no profiles of tenants; use RuntimeDefault
            a.yaml:10:35 spec.containers[0].securityContext.privileged: expected true or false, found the number 1
            a.yaml:10:49 spec.containers[0].securityContext.runAsUser: -1 is out of range: must be between 0 and 2147483647
            a.yaml:10:74 spec.containers[0].securityContext.capabilities.add[0]: "CAP_NET_ADMIN" must be written as "NET_ADMIN"
            a.yaml:10:89 spec.containers[0].securityContext.capabilities.add[1]: "FLY" is no capability of Linux, such as NET_BIND_SERVICE, or ALL
            a.yaml:10:96 spec.containers[0].securityContext.seLinuxOptions: not supported yet
        "#]],
    );
    check_refused(
        "securityContext: {runAsUser: 0, allowPrivilegeEscalation: false, capabilities: {add: [CAP_NET_ADMIN, FLY, SYS_ADMIN]}}\nterminationMessagePath: a",
        "securityContext: {runAsNonRoot: true}",
        expect![[r#"
            a.yaml:10:23 spec.containers[0].securityContext.runAsUser: is 0, which runAsNonRoot refuses
            a.yaml:10:37 spec.containers[0].securityContext.allowPrivilegeEscalation: cannot be false when SYS_ADMIN is given: with it a program gets every other right
            a.yaml:10:91 spec.containers[0].securityContext.capabilities.add[0]: "CAP_NET_ADMIN" must be written as "NET_ADMIN"
            a.yaml:10:106 spec.containers[0].securityContext.capabilities.add[1]: "FLY" is no capability of Linux, such as NET_BIND_SERVICE, or ALL
            a.yaml:11:5 spec.containers[0].terminationMessagePath: "a" must be an absolute path without empty parts, '.' and '..'
        "#]],
    );
}

#[test]
fn settings_that_cannot_be_are_named() {
    check_refused(
        "securityContext: {privileged: true, allowPrivilegeEscalation: false}",
        "securityContext: {sysctls: [{name: kernel.hostname, value: a}, {name: Net.x, value: a}, {name: vm.swappiness, value: '1'}, {name: vm/swappiness, value: '2'}]}",
        expect![[r#"
            a.yaml:6:32 spec.securityContext.sysctls[0].name: "kernel.hostname" is the pod's hostname: say it in spec.hostname
            a.yaml:6:67 spec.securityContext.sysctls[1].name: "Net.x" is no name of a setting, such as net.core.somaxconn: at most 253 of a-z, 0-9, '-' and '_' in parts between '.' or '/'
            a.yaml:6:127 spec.securityContext.sysctls[3].name: "vm/swappiness" is set twice
            a.yaml:10:41 spec.containers[0].securityContext.allowPrivilegeEscalation: cannot be false for a privileged container: it has every right already
        "#]],
    );
}

#[test]
fn https_and_names_are_printed_as_they_were_read() {
    let spec = "dnsPolicy: None\nsubdomain: front\nsetHostnameAsFQDN: true\n\
                dnsConfig: {nameservers: [10.0.0.2, 'fd00::2'], searches: [a.example], options: [{name: ndots, value: '2'}, {name: rotate}]}\n\
                hostAliases: [{ip: 10.0.0.3, hostnames: [db, db.example]}]";
    let text = printed(&pod("livenessProbe: {httpGet: {port: 8443, scheme: HTTPS}}", spec));
    for words in [
        "scheme: HTTPS",
        "dnsPolicy: None",
        "subdomain: front",
        "setHostnameAsFQDN: true",
        "- \"10.0.0.2\"",
        "- a.example",
        "name: ndots",
        "name: rotate",
        "ip: \"10.0.0.3\"",
        "- db.example",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let text = printed(&pod("", "dnsPolicy: ClusterFirst\nsetHostnameAsFQDN: false\nhostAliases: []"));
    assert!(!text.contains("dns") && !text.contains("FQDN") && !text.contains("hostAliases"), "{text}");
}

#[test]
fn mistakes_in_names_are_told_in_kubernetes_words() {
    let check = |spec: &str, expected: &[&str]| {
        let errors = read(&pod("", spec)).expect_err("a mistake");
        for one in expected {
            assert!(errors.contains(one), "{one} is not in\n{errors}");
        }
        assert_eq!(errors.lines().count(), expected.len(), "{errors}");
    };
    check(
        "hostAliases: [{hostnames: [a]}, {ip: x, hostnames: [b]}]",
        &["spec.hostAliases[0].ip: is required", "spec.hostAliases[1].ip: \"x\" must be valid IP address"],
    );
    check("dnsPolicy: None", &["spec.dnsConfig: must provide `dnsConfig` when `dnsPolicy` is None"]);
    check(
        "dnsPolicy: None\ndnsConfig: {nameservers: [1.1.1.1, x], server: a}",
        &[
            "spec.dnsConfig.nameservers[1]: \"x\" must be valid IP address",
            "spec.dnsConfig.server: unknown field",
        ],
    );
}

#[test]
fn image_pull_secrets_are_printed_as_they_were_read() {
    let text = printed(&pod("", "imagePullSecrets: [{name: first}, {name: second}]"));
    assert!(text.contains("imagePullSecrets:\n  - name: first\n  - name: second\n"), "{text}");
    assert!(!printed(&pod("", "imagePullSecrets: []")).contains("imagePullSecrets"));
    let deployment = include_str!("../../../examples/private-registry.yaml");
    assert!(printed(deployment).contains("- name: registry-credentials"));
}

#[test]
fn mistakes_in_image_pull_secrets_are_told() {
    let check = |secrets: &str, expected: &[&str]| {
        let errors = read(&pod("", &format!("imagePullSecrets: {secrets}"))).expect_err("a mistake");
        for one in expected {
            assert!(errors.contains(one), "{one} is not in\n{errors}");
        }
        assert_eq!(errors.lines().count(), expected.len(), "{errors}");
    };
    check("[{}]", &["spec.imagePullSecrets[0].name: "]);
    check("[{name: A b}]", &["spec.imagePullSecrets[0].name: "]);
    check("[{name: a, namespace: b}]", &["spec.imagePullSecrets[0].namespace: unknown field"]);
    let many: Vec<String> = (0..17).map(|n| format!("{{name: s{n}}}")).collect();
    check(&format!("[{}]", many.join(", ")), &["spec.imagePullSecrets: has 17 Secrets"]);
}

#[test]
fn the_loopback_and_when_claims_are_given_to_a_group_are_kept() {
    let text = printed(&pod(
        "livenessProbe: {tcpSocket: {port: 1, host: 127.0.0.1}}\nreadinessProbe: {httpGet: {port: 1, host: localhost}}\n\
         startupProbe: {httpGet: {port: 1, host: \"\"}}",
        "securityContext: {fsGroup: 5, fsGroupChangePolicy: OnRootMismatch}",
    ));
    for words in ["host: \"127.0.0.1\"", "host: localhost", "fsGroupChangePolicy: OnRootMismatch"] {
        assert_eq!(text.matches(words).count(), 1, "{words} in\n{text}");
    }
    check_refused(
        "",
        "securityContext: {fsGroup: 5, fsGroupChangePolicy: Never}",
        expect![[r#"
            a.yaml:6:54 spec.securityContext.fsGroupChangePolicy: "Never" is not one of Always, OnRootMismatch
        "#]],
    );
}
