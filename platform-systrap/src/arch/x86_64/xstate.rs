//! The FPU and vector image of a signal frame.
//!
//! The kernel writes the XSAVE image in standard format, describes it in its software-reserved bytes (`struct
//! _fpx_sw_bytes`, asm/sigcontext.h), and puts FP_XSTATE_MAGIC2 behind it. A guest can write its own frame, so what
//! comes out of one is cleaned like what goes in: an image that XRSTOR refuses would turn a sigreturn into a SIGSEGV half
//! way through.

use platform::{XState, xstate};

/// Where XSTATE_BV is.
const PRESENT: usize = 512;
/// Where `struct _fpx_sw_bytes` is.
const SOFTWARE: usize = 464;
/// FP_XSTATE_MAGIC1.
const MAGIC1: u32 = 0x4650_5853;
/// FP_XSTATE_MAGIC2.
const MAGIC2: u32 = 0x4650_5845;
/// Features that a thread gets when it first uses them, if it may (`ARCH_REQ_XCOMP_PERM`): tile data.
const DYNAMIC: u64 = 1 << 18;

/// The layout of an image on this host.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Bytes of the image without the trailing magic.
    size: usize,
    /// What the kernel enabled (XCR0), with or without the dynamic features.
    features: u64,
}

impl Layout {
    /// The layouts of this host: that of a new thread, and that after the first use of a dynamic feature if there is one.
    /// `None` without XSAVE.
    pub fn detect() -> Option<Vec<Self>> {
        if !std::arch::is_x86_feature_detected!("xsave") {
            return None;
        }
        let host = xstate::layout();
        let layout = |features| Self { size: host.size_of(features), features };
        let mut layouts = vec![layout(host.features & !DYNAMIC)];
        if host.features & DYNAMIC != 0 {
            layouts.push(layout(host.features));
        }
        Some(layouts)
    }

    /// The components of an image.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Whether `state` has something that an image of this layout cannot hold.
    pub fn lacks(&self, state: &XState) -> bool {
        let present = state.0.get(PRESENT..PRESENT + 8).and_then(|bytes| bytes.try_into().ok());
        present.map_or(0, u64::from_le_bytes) & !self.features != 0
    }

    /// Bytes of an image, without the trailing magic.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes that the kernel takes for it on the signal stack.
    pub fn frame_size(&self) -> usize {
        self.size + 4
    }

    /// An image that loads in a thread of this layout, made from whatever there is: see [`xstate::sanitize`].
    pub fn clean(&self, state: &XState) -> Vec<u8> {
        let mut image = xstate::sanitize(state);
        image.truncate(self.size);
        if let Some(present) = image.get_mut(PRESENT..PRESENT + 8) {
            for (byte, mask) in present.iter_mut().zip(self.features.to_le_bytes()) {
                *byte &= mask;
            }
        }
        image
    }

    /// A clean image as it lies in a frame: described, and ended by the second magic.
    pub fn frame_image(&self, state: &XState) -> Vec<u8> {
        let mut image = self.clean(state);
        if let Some(software) = image.get_mut(SOFTWARE..PRESENT) {
            software[..4].copy_from_slice(&MAGIC1.to_le_bytes());
            software[4..8].copy_from_slice(&(self.frame_size() as u32).to_le_bytes());
            software[8..16].copy_from_slice(&self.features.to_le_bytes());
            software[16..20].copy_from_slice(&(self.size as u32).to_le_bytes());
        }
        image.extend_from_slice(&MAGIC2.to_le_bytes());
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_fit_the_layout() {
        for layout in Layout::detect().unwrap() {
            for state in [XState(Vec::new()), XState(vec![0xff; 600]), XState(vec![0xff; 20_000])] {
                let clean = layout.clean(&state);
                assert_eq!(clean.len(), layout.size());
                assert_eq!(layout.clean(&XState(clean.clone())), clean);
                assert_eq!(layout.frame_image(&state).len(), layout.frame_size());
                let present = u64::from_le_bytes(clean[512..520].try_into().unwrap());
                assert_eq!(present & !layout.features, 0);
            }
        }
    }
}
