//! The FPU and vector image of a signal frame: where it is, how large, and what may be in it.
//!
//! The kernel writes the XSAVE image in standard format, followed by FP_XSTATE_MAGIC2, and describes it in the
//! software-reserved bytes of the legacy region (`struct _fpx_sw_bytes`, asm/sigcontext.h). A guest can write its own
//! frame, so what comes out of one is cleaned like what goes in: an image that XRSTOR refuses would turn a sigreturn
//! into a SIGSEGV half way through.

use core::arch::x86_64::__cpuid_count;

/// Bytes of the legacy (FXSAVE) region.
const LEGACY: usize = 512;
/// Bytes of the legacy region and the XSAVE header.
const HEADER_END: usize = 576;
/// Where MXCSR is, and its mask.
const MXCSR: usize = 24;
/// Where `struct _fpx_sw_bytes` is.
const SOFTWARE: usize = 464;
/// FP_XSTATE_MAGIC1.
const MAGIC1: u32 = 0x4650_5853;
/// FP_XSTATE_MAGIC2.
const MAGIC2: u32 = 0x4650_5845;
/// Tile configuration.
const TILE_CONFIG: usize = 17;
/// Features that a thread gets when it first uses them, if it may (`ARCH_REQ_XCOMP_PERM`): tile data.
const DYNAMIC: u64 = 1 << 18;
/// Protection keys: four bytes of register in eight of memory.
const PKRU: usize = 9;
/// The control word and MXCSR after a reset, as Linux starts programs.
const INITIAL_FCW: u16 = 0x37f;
const INITIAL_MXCSR: u32 = 0x1f80;

/// One component beyond the legacy region.
#[derive(Clone, Copy, Debug, Default)]
struct Component {
    offset: usize,
    size: usize,
}

/// The layout of an image on this host.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Bytes of the image without the trailing magic.
    size: usize,
    /// What the kernel enabled (XCR0), with or without the dynamic features.
    features: u64,
    mxcsr_mask: u32,
    components: [Component; 63],
}

impl Layout {
    /// Reads the layouts from the processor: that of a new thread, and that after the first use of a dynamic feature
    /// if there is one. `None` without XSAVE enabled by the kernel.
    pub fn detect() -> Option<Vec<Self>> {
        let leaf1 = __cpuid_count(1, 0);
        // OSXSAVE
        if leaf1.ecx & 1 << 27 == 0 {
            return None;
        }
        let (low, high): (u32, u32);
        // SAFETY: xgetbv of register 0 is allowed in user mode when OSXSAVE is set.
        unsafe {
            core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
        }
        let all = u64::from(high) << 32 | u64::from(low);
        let mut layouts = vec![Self::new(all & !DYNAMIC)];
        if all & DYNAMIC != 0 {
            layouts.push(Self::new(all));
        }
        Some(layouts)
    }

    fn new(features: u64) -> Self {
        let mut components = [Component::default(); 63];
        let mut size = HEADER_END;
        for (index, component) in components.iter_mut().enumerate().skip(2) {
            if features & 1 << index == 0 {
                continue;
            }
            let leaf = __cpuid_count(0xd, index as u32);
            *component = Component { offset: leaf.ebx as usize, size: leaf.eax as usize };
            size = size.max(component.offset + component.size);
        }
        Self { size, features, mxcsr_mask: mxcsr_mask(), components }
    }

    /// Bytes of an image, without the trailing magic.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes that the kernel takes for it on the signal stack.
    pub fn frame_size(&self) -> usize {
        self.size + 4
    }

    /// Makes `image` one that loads: cut or filled to [`Layout::size`], reserved bits cleared, what is unknown or
    /// incomplete left at its initial state. An empty image becomes the initial state.
    pub fn clean(&self, image: &mut Vec<u8>) {
        let given = image.len().min(self.size);
        image.resize(self.size, 0);
        let mut present = if given < HEADER_END { 0 } else { get_u64(image, LEGACY) };
        present &= self.features;
        for (index, component) in self.components.iter().enumerate().skip(2) {
            if present & 1 << index != 0 && component.offset + component.size > given {
                present &= !(1 << index);
            }
        }
        if given < LEGACY {
            image[..LEGACY].fill(0);
            image[..2].copy_from_slice(&INITIAL_FCW.to_le_bytes());
            image[MXCSR..MXCSR + 4].copy_from_slice(&INITIAL_MXCSR.to_le_bytes());
        } else if given < HEADER_END {
            // A bare FXSAVE image: x87 and SSE are there.
            present = 3 & self.features;
        }
        let mxcsr = get_u32(image, MXCSR) & self.mxcsr_mask;
        image[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
        image[MXCSR + 4..MXCSR + 8].copy_from_slice(&self.mxcsr_mask.to_le_bytes());
        if present & 1 << PKRU != 0 {
            let at = self.components[PKRU].offset;
            image[at + 4..at + 8].fill(0);
        }
        let tiles = &self.components[TILE_CONFIG];
        if present & 1 << TILE_CONFIG != 0 && !loads_tiles(&image[tiles.offset..tiles.offset + tiles.size]) {
            present &= !(1 << TILE_CONFIG | DYNAMIC);
        }
        image[LEGACY..HEADER_END].fill(0);
        image[LEGACY..LEGACY + 8].copy_from_slice(&present.to_le_bytes());
        image[SOFTWARE..LEGACY].fill(0);
    }

    /// `image` (which must be clean) as it lies in a frame: described, and ended by the second magic.
    pub fn frame_image(&self, image: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(image);
        let software = &mut out[SOFTWARE..LEGACY];
        software[..4].copy_from_slice(&MAGIC1.to_le_bytes());
        software[4..8].copy_from_slice(&(self.frame_size() as u32).to_le_bytes());
        software[8..16].copy_from_slice(&self.features.to_le_bytes());
        software[16..20].copy_from_slice(&(self.size as u32).to_le_bytes());
        out.extend_from_slice(&MAGIC2.to_le_bytes());
    }
}

/// Whether LDTILECFG would take this configuration as far as it does not depend on the processor (palette 0 or 1, up
/// to 16 rows of up to 64 bytes, reserved bytes zero).
fn loads_tiles(config: &[u8]) -> bool {
    config.len() >= 64
        && config[0] <= 1
        && config[2..16].iter().chain(&config[32..48]).chain(&config[56..64]).all(|&byte| byte == 0)
        && config[16..32].chunks(2).all(|columns| columns[0] <= 64 && columns[1] == 0)
        && config[48..56].iter().all(|&rows| rows <= 16)
}

fn get_u32(image: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&image[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn get_u64(image: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&image[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// The bits of MXCSR that exist, from FXSAVE (Intel SDM 11.6.6).
fn mxcsr_mask() -> u32 {
    #[repr(C, align(16))]
    struct Area([u8; LEGACY]);
    let mut area = Area([0; LEGACY]);
    // SAFETY: the area has the size and the alignment that fxsave64 writes.
    unsafe {
        core::arch::asm!("fxsave64 [{}]", in(reg) &raw mut area.0, options(nostack));
    }
    match get_u32(&area.0, MXCSR + 4) {
        0 => 0xffbf,
        mask => mask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_image_is_the_initial_state() {
        let layout = &Layout::detect().unwrap()[0];
        let mut image = Vec::new();
        layout.clean(&mut image);
        assert_eq!(image.len(), layout.size());
        assert_eq!(get_u32(&image, MXCSR), INITIAL_MXCSR);
        assert_eq!(get_u64(&image, LEGACY), 0);
        let again = image.clone();
        layout.clean(&mut image);
        assert_eq!(image, again);
    }

    #[test]
    fn hostile_images_become_loadable() {
        let layout = &Layout::detect().unwrap()[0];
        for len in [0, 1, 511, 512, 575, 576, 577, layout.size() - 1, layout.size(), layout.size() + 99] {
            let mut image = vec![0xff; len];
            layout.clean(&mut image);
            assert_eq!(image.len(), layout.size());
            assert_eq!(get_u32(&image, MXCSR) & !layout.mxcsr_mask, 0);
            assert_eq!(get_u64(&image, LEGACY) & !layout.features, 0);
            assert!(image[LEGACY + 8..HEADER_END].iter().all(|&byte| byte == 0));
            // SAFETY: the image is clean and aligned below; xrstor of what XCR0 enables cannot fault then. All vector
            // registers are caller-saved or restored from the saved copy before anything uses them.
            unsafe { assert_loads(layout, &image) };
        }
    }

    /// Loads the image with XRSTOR between a save and a restore of our own state.
    unsafe fn assert_loads(layout: &Layout, image: &[u8]) {
        let bytes = layout.size() + 64 + 4096;
        let area = |src: &[u8]| {
            let layout = std::alloc::Layout::from_size_align(bytes, 64).unwrap();
            // SAFETY: the size is not zero.
            let area = unsafe { std::alloc::alloc_zeroed(layout) };
            // SAFETY: `src` is shorter than the area.
            unsafe { area.copy_from_nonoverlapping(src.as_ptr(), src.len()) };
            area
        };
        let ours = area(&[]);
        let theirs = area(image);
        // Not PKRU: all of our memory would be closed.
        let mask = layout.features & !(1 << PKRU);
        // SAFETY: both areas are aligned and large enough; our own state is back before the block ends.
        unsafe {
            core::arch::asm!(
                "xsave64 [{ours}]", "xrstor64 [{theirs}]", "xrstor64 [{ours}]",
                ours = in(reg) ours, theirs = in(reg) theirs,
                in("eax") mask as u32, in("edx") (mask >> 32) as u32,
            );
        }
    }
}
