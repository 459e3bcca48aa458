//! Images that nodes keep once a guest wanted them, and that their agents tell of.

use bulkhead_nodeagent_core::Input;
use bulkhead_types::{NodeImage, NodeImages, ObjectId, digest128, whole_image_name};
use smol_str::SmolStr;

use crate::agent_host::AgentHost;
use crate::world::World;

const MIB: u64 = 1 << 20;

/// What a node has, as its agent tells it. Sizes follow from names, so that all nodes tell the same of an image.
pub(crate) fn told(host: &AgentHost) -> NodeImages {
    NodeImages::largest(host.images.iter().map(|name| {
        let number = digest128(name);
        NodeImage {
            digest: SmolStr::new(format!("sha256:{number:032x}")),
            names: vec![name.clone()],
            size_bytes: (1 + number as u64 % 2000) * MIB,
        }
    }))
}

impl World {
    /// An image is on a node from now on.
    pub(crate) fn keep_image(&mut self, agent: u32, image: &str) {
        let host = &mut self.agents[agent as usize];
        if self.options.node.tells_images && host.images.insert(whole_image_name(image)) {
            self.tell_images(agent);
        }
    }

    /// A running agent looks at its store.
    pub(crate) fn tell_images(&mut self, agent: u32) {
        if self.options.node.tells_images {
            let images = told(&self.agents[agent as usize]);
            self.tell_agent(agent, Input::Images(images));
        }
    }

    /// What each node that is known has.
    pub(crate) fn images(&self) -> Vec<(ObjectId, NodeImages)> {
        let tells = self.options.node.tells_images;
        let hosts = self.agents.iter().filter(|host| tells && host.is_up());
        hosts.filter_map(|host| Some((host.node?, told(host)))).collect()
    }
}
