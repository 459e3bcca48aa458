//! Manifests of DeviceClasses and of pods that ask for devices.

mod kit;

use bulkhead_manifest::to_yaml;
use bulkhead_types::{Object, SchedulerPolicy, builtin_device_classes};
use expect_test::{Expect, expect};
use kit::{NAMES, check, read};

#[test]
fn the_example_is_read_whole_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/devices.yaml"));
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let [
        Object::DeviceClass(class),
        Object::Pod(train),
        Object::Pod(serve),
        Object::Pod(units),
        Object::Pod(slice),
    ] = &objects[..]
    else {
        panic!("a class and four pods, not {objects:?}")
    };
    assert_eq!(class.spec.selector.devices.len(), 3);
    let asks = |pod: &bulkhead_types::Pod| -> Vec<(String, u64)> {
        pod.spec.containers[0].extended_resources().map(|(name, amount)| (name.to_string(), amount)).collect()
    };
    assert_eq!(asks(train), [("nvidia.com/gpu".to_owned(), 2)]);
    assert_eq!(asks(units), [("aliyun.com/gpu-mem".to_owned(), 8)]);
    assert_eq!(asks(slice), [("nvidia.com/mig-1g.10gb".to_owned(), 1)]);
    let shares = [("nvidia.com/gpucores", 20), ("nvidia.com/gpumem", 4000), ("nvidia.com/vgpu", 1)];
    assert_eq!(asks(serve), shares.map(|(name, amount)| (name.to_owned(), amount)));
}

#[test]
fn the_example_of_cpus_says_what_the_scheduler_reads() {
    use bulkhead_types::{CpuHold, CpuNeeds, NumaPolicy, Rare, cpu_needs};
    let objects = read(include_str!("../../../examples/numa.yaml"));
    let mut found = Vec::new();
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
        let needs = match object {
            Object::Pod(pod) => cpu_needs(&pod.meta.labels, &pod.meta.annotations, &pod.spec),
            Object::Job(job) => {
                let template = &job.spec.template;
                cpu_needs(&template.labels, &template.annotations, &template.spec)
            }
            other => panic!("{other:?}"),
        };
        let shown = |one: CpuNeeds| (one.cpus, one.hold, one.policy, one.full_cores);
        found.push(needs.expect("well said").map(shown));
    }
    let any = NumaPolicy::None;
    let expected = [
        Some((4, CpuHold::Reserved, NumaPolicy::SingleNumaNode, false)),
        Some((2, CpuHold::Exclusive, any, true)),
        Some((2, CpuHold::Reserved, any, false)),
        None,
        Some((4, CpuHold::Bound, any, false)),
    ];
    assert_eq!(found, expected);
    // What a pod was given is said with its status.
    let Object::Pod(pod) = &objects[0] else { panic!("a pod") };
    let mut pod = bulkhead_types::Pod::clone(pod);
    let cpus = "0-3".parse().expect("a set");
    let given = bulkhead_types::PodCpus {
        cpus,
        numa_nodes: vec![0],
        memory_bytes: 1,
        huge_pages: bulkhead_types::HugePages::NONE,
        hold: CpuHold::Reserved,
    };
    pod.status.cpus = Rare::some(given);
    let ip = |text: &str| text.parse().expect("an address");
    let told =
        bulkhead_types::PodAddresses { pod_ips: vec![ip("10.128.7.2")], host_ip: Some(ip("192.0.2.7")) };
    pod.status.addresses = Rare::some(told);
    let text = to_yaml(&Object::Pod(std::sync::Arc::new(pod)), NAMES);
    for (field, address) in
        [("hostIP", "192.0.2.7"), ("- ip", "192.0.2.7"), ("podIP", "10.128.7.2"), ("- ip", "10.128.7.2")]
    {
        assert!(text.contains(&format!("{field}: \"{address}\"\n")), "{text}");
    }
    assert!(text.contains("cpuset: \"0-3\"\n") && text.contains("numaNodes:\n"), "{text}");
}

#[test]
fn every_class_that_comes_along_is_a_manifest_too() {
    for class in builtin_device_classes() {
        let meta =
            bulkhead_types::ObjectMeta::new(None, bulkhead_types::Name::new(&class.name).expect("a name"));
        let object =
            Object::DeviceClass(std::sync::Arc::new(bulkhead_types::DeviceClass { meta, spec: class.spec }));
        assert_eq!(read(&to_yaml(&object, NAMES)), [object]);
    }
}

#[track_caller]
fn check_class(spec: &str, expected: Expect) {
    check(
        &format!("apiVersion: bulkhead.io/v1\nkind: DeviceClass\nmetadata: {{name: c}}\nspec: {spec}\n"),
        expected,
    );
}

#[track_caller]
fn check_resources(resources: &str, expected: Expect) {
    let container = format!("{{name: main, image: 'a:1', resources: {resources}}}");
    check(
        &format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{container}]}}\n"),
        expected,
    );
}

#[test]
fn mistakes_of_classes_are_told_with_their_places() {
    check_class(
        "{extendedResourceName: gpu, selector: {vendors: ['0x10de'], clases: []}}",
        expect![[r#"
            a.yaml:4:8 spec.extendedResourceName: is no name of an extended resource: expected DOMAIN/NAME, such as nvidia.com/gpu
            a.yaml:4:55 spec.selector.vendors[0]: "0x10de": expected four hexadecimal digits, such as "10de"
            a.yaml:4:67 spec.selector.clases: unknown field: did you mean "classes"?
        "#]],
    );
    check_class(
        "{selector: {}}",
        expect![[r#"
        a.yaml:4:7 spec.extendedResourceName: is required
    "#]],
    );
    check_class(
        "{extendedResourceName: a.b/c, selector: {role: Virtual}, sharing: {extendedResourceName: a.b/c, \
         memoryResourceName: kubernetes.io/m, coresResourceName: a.b/e, splitCount: 0, memoryScalingPercent: 5000}}",
        expect![[r#"
            a.yaml:4:37 spec.selector: must say which devices: at least one of vendors, devices, classes, models and drivers
            a.yaml:4:74 spec.sharing.extendedResourceName: repeats a.b/c: each resource has a name of its own
            a.yaml:4:103 spec.sharing.memoryResourceName: is no name of an extended resource: expected DOMAIN/NAME, such as nvidia.com/gpu
            a.yaml:4:166 spec.sharing.splitCount: must be from 1 to 1000
            a.yaml:4:181 spec.sharing.memoryScalingPercent: must be from 1 to 1000
        "#]],
    );
    let spread = "{extendedResourceName: a.b/c, selector: {vendors: ['10de']}, sharing: {extendedResourceName: a.b/v, \
        memoryResourceName: a.b/m, coresResourceName: a.b/e, deviceSchedulerPolicy: Spread}}";
    let text =
        format!("apiVersion: bulkhead.io/v1\nkind: DeviceClass\nmetadata: {{name: c}}\nspec: {spread}\n");
    let [Object::DeviceClass(class)] = &read(&text)[..] else { panic!("a class") };
    let sharing = class.spec.sharing.as_ref().expect("it is shared");
    let defaults = (sharing.split_count, sharing.memory_scaling_percent, sharing.core_scaling_percent);
    assert_eq!(defaults, (10, 100, 100));
    assert_eq!(sharing.device_scheduler_policy, SchedulerPolicy::Spread);
}

#[test]
fn mistakes_of_partitions_are_told_with_their_places() {
    let class =
        |rest: &str| format!("{{extendedResourceName: a.b/c, selector: {{vendors: ['10de']}}, {rest}}}");
    let model = "name: m, capacity: {memory: 8}, placedBy: memory";
    check_class(
        &class(&format!(
            "partitioning: {{models: [{{{model}, profiles: [\
             {{name: p, extendedResourceName: a.b/c, uses: {{memory: 4, cores: 1}}, placements: [0, 6]}}, \
             {{name: p, extendedResourceName: a.b/d, uses: {{}}, placement: [0]}}]}}]}}"
        )),
        expect![[r#"
            a.yaml:4:164 spec.partitioning.models[0].profiles[0].extendedResourceName: repeats a.b/c: each resource has a name of its own
            a.yaml:4:211 spec.partitioning.models[0].profiles[0].uses[cores]: is nothing that the card has: see capacity
            a.yaml:4:222 spec.partitioning.models[0].profiles[0].placements: must be places for 4 of 8 slices of memory
            a.yaml:4:243 spec.partitioning.models[0].profiles[1].placements: must be places for 0 of 8 slices of memory
            a.yaml:4:244 spec.partitioning.models[0].profiles[1].name: repeats p
            a.yaml:4:282 spec.partitioning.models[0].profiles[1].uses: must say what a partition uses of its card
            a.yaml:4:292 spec.partitioning.models[0].profiles[1].placement: unknown field: did you mean "placements"?
        "#]],
    );
    check_class(
        &class(&format!(
            "partitioning: {{models: [{{{model}, profiles: [\
             {{name: p, extendedResourceName: a.b/d, uses: {{memory: 4}}, placements: [0, 4]}}]}}], \
             layouts: [{{name: three, partitions: {{p: 3}}}}, {{name: q, partitions: {{q: 1}}}}, {{name: two, partitions: {{p: 2}}}}]}}"
        )),
        expect![[r#"
            a.yaml:4:260 spec.partitioning.layouts[0].partitions: do not fit on a card: more memory is used than the 8 that a m has
            a.yaml:4:291 spec.partitioning.layouts[1].partitions: are profiles of no model
        "#]],
    );
    check_class(
        &class(
            "faults: {rules: [{action: Explode, codes: [48, x]}]}, visibility: {env: 'A=B'}, memoryResourceName: m",
        ),
        expect![[r#"
            a.yaml:4:94 spec.faults.rules[0].action: "Explode" is not one of Warn, KillPod, KillAll, Fence, Drain
            a.yaml:4:115 spec.faults.rules[0].codes[1]: must be a whole number
            a.yaml:4:135 spec.visibility.env: is no name of a variable: expected letters, digits and _, such as CXPU_VISIBLE_DEVICES
            a.yaml:4:148 spec.memoryResourceName: is no name of an extended resource: expected DOMAIN/NAME, such as nvidia.com/gpu
        "#]],
    );
}

#[test]
fn the_mode_of_a_node_is_read_and_printed() {
    let node = |spec: &str| format!("apiVersion: v1\nkind: Node\nmetadata: {{name: n}}\nspec: {spec}\n");
    let objects = read(&node("{gpuMode: all-1g.10gb, partitionStrategy: Single}"));
    let [Object::Node(one)] = &objects[..] else { panic!("a node") };
    let gpu = one.spec.gpu.get().expect("a mode");
    assert_eq!((gpu.mode.as_str(), gpu.strategy), ("all-1g.10gb", bulkhead_types::PartitionStrategy::Single));
    let printed = to_yaml(&objects[0], NAMES);
    assert!(printed.contains("gpuMode: all-1g.10gb"), "{printed}");
    check(
        &node("{partitionStrategy: Single}"),
        expect![[r#"
        a.yaml:4:7 spec.gpuMode: is required
    "#]],
    );
    check(
        &node("{gpuMode: ''}"),
        expect![[r#"
        a.yaml:4:8 spec.gpuMode: must have 1 to 128 bytes, and no control characters
    "#]],
    );
}

#[test]
fn mistakes_of_requests_are_told_with_their_places() {
    check_resources(
        "{requests: {nvidia.com/gpu: 1}}",
        expect![[r#"
        a.yaml:4:48 spec.containers[0].resources.limits[nvidia.com/gpu]: is required as well: devices are not given beyond a limit, so both must be the same
    "#]],
    );
    check_resources(
        "{requests: {nvidia.com/gpu: 1}, limits: {nvidia.com/gpu: 2}}",
        expect![[r#"
        a.yaml:4:71 spec.containers[0].resources.requests[nvidia.com/gpu]: is 1, the limit is 2: of devices both must be the same
    "#]],
    );
    check_resources(
        "{limits: {nvidia.com/gpu: 1.5, nvidia.com/vgpu: 500m, kubernetes.io/x: 1, a.b/c: -1}}",
        expect![[r#"
            a.yaml:4:85 spec.containers[0].resources.limits.nvidia.com/gpu: must be a whole number, found 1.5
            a.yaml:4:107 spec.containers[0].resources.limits.nvidia.com/vgpu: must be a whole number, found 500m
            a.yaml:4:113 spec.containers[0].resources.limits.kubernetes.io/x: resource kubernetes.io/x is not supported yet
            a.yaml:4:140 spec.containers[0].resources.limits.a.b/c: "-1" is negative: a quantity must be zero or more
        "#]],
    );
    check_resources(
        "{limits: {nvidia.com/gpu: '2'}}",
        expect![[r#"
        accepted
    "#]],
    );
    check(
        "apiVersion: v1\nkind: ResourceSlice\nmetadata: {name: node-1}\nspec: {}\n",
        expect![[r#"
            a.yaml:2:7 kind: kind "ResourceSlice" is unknown; there are Namespace, Node, Pod, ReplicaSet, Deployment, StatefulSet, DaemonSet, Job, CronJob, ConfigMap, Secret, HorizontalPodAutoscaler, CronHorizontalPodAutoscaler, PodDisruptionBudget, ElasticWorkload, VerticalPodAutoscaler, PriorityClass, Profile, PersistentVolumeClaim, ResourceQuota, LimitRange, Department, Project, PodGroup, Queue, DeviceClass, SriovNetworkNodePolicy, SriovNetwork, SriovIBNetwork, NodePool, NodeOperation, DeschedulerPolicy, ElasticQuotaTree, VolumeSnapshot, StorageClass, PersistentVolume
        "#]],
    );
}

#[test]
fn the_example_of_pools_is_read_whole_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/node-pool.yaml"));
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let [Object::NodePool(pool), Object::NodeOperation(operation)] = &objects[..] else {
        panic!("a pool and an operation, not {objects:?}")
    };
    assert_eq!((pool.spec.desired_nodes, pool.spec.sync_existing), (Some(4), true));
    assert_eq!(pool.spec.gpu.get().map(|gpu| gpu.mode.as_str()), Some("shared"));
    assert_eq!(operation.spec.pool.as_ref().map(|name| name.as_str()), Some("gpu"));
    assert_eq!(operation.spec.timeout_per_node_ms, 900_000);
}

#[test]
fn mistakes_in_pools_and_operations_are_told_with_their_places() {
    let check_spec = |kind: &str, spec: &str, expected: Expect| {
        let head = format!("apiVersion: bulkhead.io/v1\nkind: {kind}\nmetadata: {{name: a}}\n");
        check(&format!("{head}spec: {spec}\n"), expected);
    };
    check_spec(
        "NodePool",
        "{labels: {kubernetes.io/hostname: a}, taints: [{key: t}], runtimeClassName: runc, desiredNodes: -1, nodes: 3, partitionStrategy: Mixed}",
        expect![[r#"
            a.yaml:4:7 spec.gpuMode: is required
            a.yaml:4:17 spec.labels[kubernetes.io/hostname]: is each node's own: a pool cannot give it
            a.yaml:4:54 spec.taints[0].effect: is required
            a.yaml:4:83 spec.runtimeClassName: runc shares the host's kernel and so isolates no tenant: it is not offered; leave the field out, or use rune
            a.yaml:4:103 spec.desiredNodes: -1 is out of range: must be between 0 and 50000
            a.yaml:4:107 spec.nodes: unknown field
        "#]],
    );
    check_spec(
        "NodeOperation",
        "{pool: gpu, nodes: [a, b, a, A_B], action: Reboot, maxBatch: 0, timeoutPerNodeSeconds: 0}",
        expect![[r#"
            a.yaml:4:26 spec.nodes: name "A_B" is invalid: must be 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit
            a.yaml:4:50 spec.action: "Reboot" is not one of Cordon, Uncordon, Drain, SetGpuMode
            a.yaml:4:68 spec.maxBatch: 0 is out of range: must be between 1 and 5000
            a.yaml:4:94 spec.timeoutPerNodeSeconds: 0 is out of range: must be between 1 and 86400
        "#]],
    );
    check_spec(
        "NodeOperation",
        "{pool: gpu, nodes: [a, a], action: SetGpuMode, force: true}",
        expect![[r#"
            a.yaml:4:1 spec.gpuMode: is required by the action SetGpuMode
            a.yaml:4:19 spec.nodes: must not be set beside pool
            a.yaml:4:30 spec.nodes[1]: repeats a
            a.yaml:4:54 spec.force: is for the action Drain only
        "#]],
    );
}

#[test]
fn the_example_of_descheduling_is_read_whole_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/descheduler.yaml"));
    let [Object::DeschedulerPolicy(policy)] = &objects[..] else { panic!("a policy, not {objects:?}") };
    assert_eq!(read(&to_yaml(&objects[0], NAMES)), objects);
    assert_eq!(
        (policy.spec.interval_ms, policy.spec.dry_run, policy.spec.strategies.len()),
        (120_000, true, 8)
    );
}

#[test]
fn mistakes_in_descheduling_are_told_with_their_places() {
    let head = "apiVersion: bulkhead.io/v1\nkind: DeschedulerPolicy\nmetadata: {name: a}\n";
    check(
        &format!(
            "{head}spec: {{intervalSeconds: 1, namespaces: {{include: [a], exclude: [b]}}, strategies: [{{name: RemoveDuplicate}}, \
             {{name: PodLifeTime}}, {{name: RemoveDuplicates, args: {{excludeOwnerKinds: [Job]}}}}, {{name: LowNodeUtilization, \
             args: {{thresholds: {{cpu: 200}}, targetThresholds: {{cpu: 50, gpu: 1}}}}}}]}}\n"
        ),
        expect![[r#"
            a.yaml:4:8 spec.intervalSeconds: must be from 10 to 86400
            a.yaml:4:28 spec.namespaces: must be either include or exclude
            a.yaml:4:90 spec.strategies[0].name: "RemoveDuplicate" is no strategy: did you mean "RemoveDuplicates"?; there are LowNodeUtilization, RemoveDuplicates, RemovePodsViolatingNodeAffinity, RemovePodsViolatingNodeTaints, RemovePodsViolatingTopologySpreadConstraint, RemovePodsViolatingInterPodAntiAffinity, RemovePodsHavingTooManyRestarts, PodLifeTime
            a.yaml:4:108 spec.strategies[1].args: is required
            a.yaml:4:161 spec.strategies[2].args.excludeOwnerKinds: not supported yet
            a.yaml:4:241 spec.strategies[3].args.thresholds.cpu: 200 is out of range: must be between 0 and 100
            a.yaml:4:275 spec.strategies[3].args.targetThresholds.gpu: unknown field: did you mean "cpu"?
        "#]],
    );
    check(
        &format!(
            "{head}spec: {{coolDownSeconds: 999999, strategies: [{{name: LowNodeUtilization, args: {{thresholds: {{cpu: 50}}, \
             targetThresholds: {{cpu: 20, pods: 10}}}}}}, {{name: RemoveDuplicates}}, {{name: RemoveDuplicates}}]}}\n"
        ),
        expect![[r#"
            a.yaml:4:8 spec.coolDownSeconds: must be at most 604800
            a.yaml:4:122 spec.strategies[0].args.targetThresholds.cpu: must be at least the threshold, which is 50
            a.yaml:4:131 spec.strategies[0].args.targetThresholds.pods: must not be set: thresholds do not name it
            a.yaml:4:171 spec.strategies[2].name: repeats RemoveDuplicates
        "#]],
    );
}

#[test]
fn what_pods_choose_and_name_is_read_and_printed_as_the_same() {
    let objects = read(include_str!("../../../examples/device-choice.yaml"));
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let [Object::Deployment(_), Object::Pod(train), Object::Pod(kunlun)] = &objects[..] else {
        panic!("a Deployment and two pods, not {objects:?}")
    };
    let class = |name: &str| {
        builtin_device_classes().into_iter().find(|one| one.name == name).expect("it is there").spec
    };
    let choice = class("nvidia-gpu").selection.get().and_then(|one| one.choice(&train.meta.annotations));
    assert!(choice.is_some(), "the class reads what the example says");
    let variable = class("kunlun-xpu").visibility.get().expect("one").env.clone();
    let named = kunlun.spec.containers.iter().flat_map(|one| &one.env).filter(|env| variable == env.name);
    assert_eq!(named.count(), 2);
}

#[test]
fn what_classes_say_of_labels_choices_and_places_has_its_mistakes_named() {
    let class =
        |parts: &str| format!("{{extendedResourceName: a.b/c, selector: {{vendors: ['10de']}}, {parts}}}");
    check_class(
        &class(
            "nodeLabels: {count: '-', cuont: a}, selection: {useModels: 'a b'}, visibility: {env: A, rule: Nobody}, \
             partitioning: {models: [], counted: {counts: x}}",
        ),
        expect![[r#"
            a.yaml:4:207 spec.partitioning.counted.extendedResourceName: is required
        "#]],
    );
    check_class(
        &class(
            "sharing: {extendedResourceName: a.b/d, memoryResourceName: a.b/e, coresResourceName: a.b/f, slotsResourceName: \
             a.b/d, defaultCount: 65}",
        ),
        expect![[r#"
            a.yaml:4:160 spec.sharing.slotsResourceName: repeats a.b/d: each resource has a name of its own
            a.yaml:4:186 spec.sharing.defaultCount: must be from 1 to 64
        "#]],
    );
}

#[test]
fn the_example_of_huge_pages_is_read_whole_and_printed_as_the_same() {
    use bulkhead_types::{HugePageMedium, HugePages};
    let objects = read(include_str!("../../../examples/huge-pages.yaml"));
    for object in &objects {
        assert_eq!(read(&to_yaml(object, NAMES)), std::slice::from_ref(object));
    }
    let pods: Vec<_> = objects
        .iter()
        .filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        })
        .collect();
    let pages = |two: u64, one: u64| HugePages { two_mib_bytes: two << 20, one_gib_bytes: one << 30 };
    let asked: Vec<_> = pods.iter().map(|pod| pod.spec.huge_pages()).collect();
    assert_eq!(asked, [pages(256, 0), pages(64, 2), pages(0, 0)]);
    let media: Vec<_> = pods[1].spec.volumes().iter().filter_map(|volume| volume.huge_pages()).collect();
    assert_eq!(media, [HugePageMedium::TwoMib, HugePageMedium::OneGib]);
}

#[test]
fn huge_pages_are_asked_for_as_kubernetes_wants_it() {
    check_resources(
        "{requests: {hugepages-2Mi: 4Mi, cpu: 1}}",
        expect![[r#"
            a.yaml:4:71 spec.containers[0].resources.requests.hugepages-2Mi: needs a limit as well: huge pages are not given beyond one, so both must be the same
        "#]],
    );
    check_resources(
        "{requests: {hugepages-2Mi: 4Mi, cpu: 1}, limits: {hugepages-2Mi: 6Mi}}",
        expect![[r#"
            a.yaml:4:71 spec.containers[0].resources.requests.hugepages-2Mi: is 4Mi, the limit is 6Mi: of huge pages both must be the same
        "#]],
    );
    check_resources(
        "{limits: {hugepages-2Mi: 3Mi, hugepages-1Gi: 1Gi}}",
        expect![[r#"
            a.yaml:4:69 spec.containers[0].resources.limits.hugepages-2Mi: is 3Mi, which is no whole number of pages of 2Mi
            a.yaml:4:69 spec.containers[0].resources.limits.hugepages-2Mi: needs cpu or memory as well: huge pages alone are no container's
        "#]],
    );
    check_resources(
        "{limits: {hugepages-4Mi: 4Mi, memory: 1Mi}}",
        expect![[r#"
            a.yaml:4:69 spec.containers[0].resources.limits.hugepages-4Mi: resource hugepages-4Mi is not supported yet
        "#]],
    );
    let volume = |medium: &str, limits: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers: [{{name: main, image: 'a:1', \
             resources: {{limits: {{memory: 1Gi{limits}}}}}}}]\n  volumes: [{{name: v, emptyDir: {{medium: {medium}}}}}]\n"
        )
    };
    check(
        &volume("HugePages", ", hugepages-2Mi: 4Mi, hugepages-1Gi: 1Gi"),
        expect![[r#"
            a.yaml:6:34 spec.volumes[0].emptyDir.medium: is HugePages, and the pod asks for both sizes: say HugePages-2Mi or HugePages-1Gi
        "#]],
    );
    check(
        &volume("HugePages-1Gi", ", hugepages-2Mi: 4Mi"),
        expect![[r#"
            a.yaml:6:34 spec.volumes[0].emptyDir.medium: is HugePages-1Gi, and no container asks for pages of that size
        "#]],
    );
    check(
        &volume("HugePages", ""),
        expect![[r#"
            a.yaml:6:34 spec.volumes[0].emptyDir.medium: is HugePages, and no container asks for any
        "#]],
    );
    let found = read(&volume("HugePages", ", hugepages-2Mi: 4Mi"));
    assert_eq!(read(&to_yaml(&found[0], NAMES)), found);
}
