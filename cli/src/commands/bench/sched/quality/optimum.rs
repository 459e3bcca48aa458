//! The fewest pods that find no node, over all ways to place them.

use super::Size;

/// Looks at every way, but for those that cannot be better than the best so far: use it for few nodes and pods.
pub(super) fn rejected(nodes: &[Size], pods: &[Size]) -> usize {
    let mut best = pods.len();
    // Large pods first: then it is seen early that a way is no good.
    let mut pods = pods.to_vec();
    pods.sort_unstable_by_key(|pod| std::cmp::Reverse((pod.cards, pod.cpu, pod.memory)));
    search(&mut nodes.to_vec(), &pods, 0, &mut best);
    best
}

fn search(free: &mut Vec<Size>, pods: &[Size], rejected: usize, best: &mut usize) {
    if rejected >= *best {
        return;
    }
    let Some((pod, rest)) = pods.split_first() else {
        *best = rejected;
        return;
    };
    for at in 0..free.len() {
        let node = free[at];
        // Nodes with the same left are one choice.
        if !node.has_room_for(*pod) || free[..at].contains(&node) {
            continue;
        }
        free[at] = node.less(*pod);
        search(free, rest, rejected, best);
        free[at] = node;
    }
    search(free, rest, rejected + 1, best);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimum_is_what_can_be_seen_by_hand() {
        let size = |cpu, memory, cards| Size { cpu, memory, cards };
        let check = |nodes: &[Size], pods: &[Size], expected: usize| {
            assert_eq!(rejected(nodes, pods), expected, "{nodes:?} {pods:?}");
        };
        check(&[], &[size(1, 1, 0)], 1);
        check(&[size(4, 4, 0)], &[size(4, 4, 0), size(2, 2, 0), size(2, 2, 0)], 1);
        // First fit by this order would put both small ones beside each other and turn the large one away.
        let nodes = [size(4, 4, 0), size(6, 6, 0)];
        check(&nodes, &[size(2, 2, 0), size(2, 2, 0), size(6, 6, 0)], 0);
        check(&[size(8, 8, 8), size(8, 8, 0)], &[size(8, 8, 0), size(1, 1, 1)], 0);
        check(&[size(8, 8, 1)], &[size(1, 1, 1), size(1, 1, 1)], 1);
    }
}
