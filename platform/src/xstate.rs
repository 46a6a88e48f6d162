//! The layout of XSAVE images (Intel SDM volume 1, chapter 13), and images that are safe to load.

use crate::XState;
use std::arch::x86_64::{__cpuid_count, _fxsave64, _xgetbv};
use std::sync::OnceLock;

/// Where MXCSR is in an image, and its mask of valid bits.
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
/// Bytes of the legacy area that are software's; a signal frame has `struct _fpx_sw_bytes` there.
const SOFTWARE: std::ops::Range<usize> = 464..512;
/// XSTATE_BV, then XCOMP_BV and reserved bytes.
const HEADER: usize = 512;
/// One past the header.
const HEADER_END: usize = 576;
/// Component of the protection keys.
const PKRU: usize = 9;
/// Components of the tile configuration and the tiles (AMX).
const TILE_CONFIG: usize = 17;
const TILE_DATA: usize = 18;
/// PKRU of a new program on Linux: all keys but 0 deny access.
const PKRU_INITIAL: u32 = 0x5555_5554;

/// What this processor's images look like.
#[derive(Debug)]
pub struct Layout {
    /// Size of a whole image in bytes.
    pub size: usize,
    /// The components that exist (XCR0).
    pub features: u64,
    mxcsr_mask: u32,
    /// Offset and size of each component.
    components: [(usize, usize); 64],
}

impl Layout {
    /// Bytes of an image that has only these components.
    pub fn size_of(&self, features: u64) -> usize {
        let ends = self.components.iter().enumerate().filter(|(i, _)| features & (1 << i) != 0);
        ends.map(|(_, (offset, size))| offset + size).fold(HEADER_END, usize::max)
    }
}

fn detect() -> Layout {
    #[repr(C, align(16))]
    struct Area([u8; 512]);
    let mut area = Area([0; 512]);
    // SAFETY: x86-64 has FXSAVE; the area has its size and alignment.
    unsafe { _fxsave64(area.0.as_mut_ptr()) };
    let mut mask = [0; 4];
    mask.copy_from_slice(&area.0[MXCSR_MASK..MXCSR_MASK + 4]);
    let mxcsr_mask = match u32::from_le_bytes(mask) {
        0 => 0xffbf,
        mask => mask,
    };
    let mut layout = Layout { size: HEADER_END, features: 3, mxcsr_mask, components: [(0, 0); 64] };
    if !std::arch::is_x86_feature_detected!("xsave") {
        return layout;
    }
    layout.size = __cpuid_count(0xd, 0).ebx as usize;
    // SAFETY: OSXSAVE is set, as the detection of xsave includes.
    layout.features = unsafe { xcr0() };
    for (i, component) in layout.components.iter_mut().enumerate().skip(2) {
        if layout.features & (1 << i) != 0 {
            let leaf = __cpuid_count(0xd, i as u32);
            *component = (leaf.ebx as usize, leaf.eax as usize);
        }
    }
    layout
}

/// # Safety
/// The processor must have XSAVE enabled.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}

/// The layout, detected once.
pub fn layout() -> &'static Layout {
    static LAYOUT: OnceLock<Layout> = OnceLock::new();
    LAYOUT.get_or_init(detect)
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = image.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

fn word(image: &[u8], at: usize) -> u64 {
    image.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or([0; 8])))
}

/// The state of a new program: what Linux gives after execve(2).
pub fn initial() -> Vec<u8> {
    let layout = layout();
    let mut image = vec![0; layout.size];
    put(&mut image, 0, &0x37fu16.to_le_bytes());
    put(&mut image, MXCSR, &0x1f80u32.to_le_bytes());
    put(&mut image, MXCSR_MASK, &layout.mxcsr_mask.to_le_bytes());
    let mut present = 3u64;
    if layout.features & (1 << PKRU) != 0 {
        put(&mut image, layout.components[PKRU].0, &PKRU_INITIAL.to_le_bytes());
        present |= 1 << PKRU;
    }
    put(&mut image, HEADER, &present.to_le_bytes());
    image
}

/// A whole image that the processor and the host accept, made from whatever a guest supplied: components that are
/// unknown or cut off are taken as initial, reserved bits are cleared. An image too short for the legacy area is the
/// initial state; one that ends with it has x87 and SSE only.
pub fn sanitize(state: &XState) -> Vec<u8> {
    let layout = layout();
    let given = &state.0;
    if given.len() < HEADER {
        return initial();
    }
    let mut image = vec![0; layout.size];
    let kept = given.len().min(layout.size);
    image[..kept].copy_from_slice(&given[..kept]);
    let mut present = if given.len() < HEADER_END { 3 } else { word(&image, HEADER) & layout.features };
    for (i, (offset, size)) in layout.components.iter().enumerate() {
        if offset + size > given.len() {
            present &= !(1 << i);
        }
    }
    let (offset, size) = layout.components[TILE_CONFIG];
    if image.get(offset..offset + size).is_some_and(|config| !is_tile_config(config)) {
        present &= !(1 << TILE_CONFIG | 1 << TILE_DATA);
    }
    let mxcsr = word(&image, MXCSR) as u32 & layout.mxcsr_mask;
    put(&mut image, MXCSR, &mxcsr.to_le_bytes());
    for range in [SOFTWARE, HEADER..HEADER_END] {
        if let Some(part) = image.get_mut(range) {
            part.fill(0);
        }
    }
    put(&mut image, HEADER, &present.to_le_bytes());
    image
}

/// Whether LDTILECFG would take this, as far as that does not depend on the processor: palette 0 or 1, up to 16 rows of up
/// to 64 bytes, reserved bytes zero.
fn is_tile_config(config: &[u8]) -> bool {
    config.iter().enumerate().all(|(i, &byte)| match i {
        0 => byte <= 1,
        1 => true,
        16..32 if i % 2 == 0 => byte <= 64,
        48..56 => byte <= 16,
        _ => byte == 0,
    })
}

/// Clears what the host put into the bytes reserved for software, so that images can be compared.
pub fn clear_software(image: &mut [u8]) {
    if let Some(part) = image.get_mut(SOFTWARE) {
        part.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_configurations() {
        let mut config = [0; 64];
        assert!(is_tile_config(&config));
        config[..2].copy_from_slice(&[1, 7]);
        config[16] = 64;
        config[48] = 16;
        assert!(is_tile_config(&config));
        for (i, byte) in [(0, 2), (2, 1), (16, 65), (17, 1), (32, 1), (48, 17), (56, 1)] {
            let mut wild = config;
            wild[i] = byte;
            assert!(!is_tile_config(&wild), "byte {i}");
        }
    }

    #[test]
    fn images_are_made_safe() {
        let initial = initial();
        assert_eq!(initial.len(), layout().size);
        assert_eq!(sanitize(&XState(Vec::new())), initial);
        assert_eq!(sanitize(&XState(initial.clone())), initial);
        let wild = sanitize(&XState(vec![0xff; layout().size + 100]));
        assert_eq!(word(&wild, HEADER), layout().features);
        assert_eq!(&wild[HEADER + 8..HEADER_END], &[0; 56]);
        assert_eq!(word(&wild, MXCSR) as u32 & !layout().mxcsr_mask, 0);
        let legacy = sanitize(&XState(vec![0xff; HEADER]));
        assert_eq!(word(&legacy, HEADER), 3);
        let cut = sanitize(&XState(vec![0xff; HEADER_END]));
        assert_eq!(word(&cut, HEADER) & !3, 0);
    }
}
