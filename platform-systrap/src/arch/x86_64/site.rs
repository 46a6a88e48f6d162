//! Call sites that are rewritten, and their trampolines ([`super::patched`] says what for).

use super::patched::OFFSET;
use super::request::CONTINUATION;
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use platform::stub::EXTRA_TEXT;

/// Bytes of a trampoline.
pub const TRAMPOLINE: u64 = 128;
/// Bytes that a patch overwrites.
pub const JUMP: usize = 5;
/// The most bytes from a call site that matter: the jump, and an instruction that begins in it.
pub const SITE: usize = JUMP + 15;
/// Offset in a trampoline of the call as it was, for threads without a page.
pub(super) const UNPATCHED: u64 = 21;
/// Offset in a trampoline of the copied instructions.
pub(super) const COPIED: u64 = 54;
/// Bytes of copied instructions in a trampoline at most.
const COPIED_MAX: usize = 40;

/// One-byte opcodes that are invalid in 64-bit mode (and not prefixes of anything).
const INVALID: [u8; 15] =
    [0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82, 0xce];

/// Distances from a site at which trampolines are looked for: their top byte, which stands at the site's fifth byte, is
/// an invalid opcode, and stays so for sites some megabytes away.
pub const DISTANCES: [i64; 7] =
    [-0x3180_0000, 0x6080_0000, 0x3780_0000, 0x2780_0000, 0x1e80_0000, 0x1680_0000, 0x0e80_0000];

/// A call site, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Address of the `syscall` instruction.
    pub addr: u64,
    /// Its bytes and those of the instructions that are copied.
    pub original: Vec<u8>,
    /// Offsets in `original` of those instructions.
    pub copied: Vec<u8>,
}

impl Site {
    /// Decodes `bytes`, which are at `addr`. `None` if the site cannot be patched: the bytes are no call, or an
    /// instruction behind it is one that cannot be moved or not be guarded.
    pub fn decode(addr: u64, bytes: &[u8]) -> Option<Site> {
        let behind = bytes.strip_prefix(&[0x0f, 0x05])?;
        let mut decoder = Decoder::with_ip(64, behind, addr + 2, DecoderOptions::NONE);
        let mut copied = Vec::new();
        let mut length = 2usize;
        while length < JUMP {
            if !decoder.can_decode() {
                return None;
            }
            let instruction = decoder.decode();
            if length == 2 && instruction.flow_control() == FlowControl::Return && instruction.len() == 1 {
                // Wrappers of a system call. What follows must be padding up to where the next function can begin.
                let rest = behind.get(1..)?;
                if !is_padding(addr + 3, rest) {
                    return None;
                }
                copied.push(2);
                length = JUMP;
                break;
            }
            let movable = !instruction.is_invalid()
                && instruction.flow_control() == FlowControl::Next
                && !instruction.is_ip_rel_memory_operand();
            // The jump's fourth byte is not under our control.
            if !movable || length == 3 {
                return None;
            }
            copied.push(length as u8);
            length += instruction.len();
        }
        Some(Site { addr, original: bytes.get(..length)?.to_vec(), copied })
    }

    /// One past the last byte that belongs to the site.
    pub fn end(&self) -> u64 {
        self.addr + self.original.len() as u64
    }

    /// The jump to `trampoline`, if it has the property that the module describes.
    pub fn jump(&self, trampoline: u64) -> Option<[u8; JUMP]> {
        let distance = trampoline.wrapping_sub(self.addr + JUMP as u64) as i64;
        let distance = i32::try_from(distance).ok()?.to_le_bytes();
        let jump = [0xe9, distance[0], distance[1], distance[2], distance[3]];
        let guarded = |offset: u8| jump.get(usize::from(offset)).is_none_or(|byte| INVALID.contains(byte));
        self.copied.iter().all(|&offset| guarded(offset)).then_some(jump)
    }

    /// The trampoline's bytes at address `at`.
    pub fn trampoline(&self, at: u64) -> Option<Vec<u8>> {
        let copied = self.original.get(2..).filter(|copied| copied.len() <= COPIED_MAX)?;
        let mut code = Vec::with_capacity(TRAMPOLINE as usize);
        let relative = |code: &Vec<u8>, target: u64| {
            let next = at + code.len() as u64 + 4;
            i32::try_from(target.wrapping_sub(next) as i64).ok().map(i32::to_le_bytes)
        };
        code.extend_from_slice(&[0xf3, 0x49, 0x0f, 0xae, 0xcb]); // rdgsbase r11
        code.extend_from_slice(&[0xc4, 0xc3, 0xfb, 0xf0, 0xcb, 32]); // rorx rcx, r11, 32
        code.extend_from_slice(&[0x89, 0xc9]); // mov ecx, ecx
        code.extend_from_slice(&[0x8d, 0x89]); // lea ecx, [rcx - high half of the stub region]
        code.extend_from_slice(&(-((platform::stub::SLOTS >> 32) as i32)).to_le_bytes());
        code.extend_from_slice(&[0xe3, 4]); // jrcxz
        debug_assert_eq!(code.len() as u64, UNPATCHED);
        code.extend_from_slice(&[0x0f, 0x05]); // syscall
        let forward = COPIED - UNPATCHED - 4;
        code.extend_from_slice(&[0xeb, forward as u8]); // jmp to the copied instructions
        code.extend_from_slice(&[0x48, 0x8d, 0x0d]); // lea rcx, [rip + copied instructions]
        code.extend_from_slice(&relative(&code, at + COPIED)?);
        code.extend_from_slice(&[0x65, 0x48, 0x89, 0x0c, 0x25]); // mov gs:[continuation], rcx
        code.extend_from_slice(&(CONTINUATION as u32).to_le_bytes());
        code.extend_from_slice(&[0x48, 0x8d, 0x0d]); // lea rcx, [rip + after the call]
        code.extend_from_slice(&relative(&code, self.addr + 2)?);
        code.extend_from_slice(&[0xff, 0x25]); // jmp [rip + pointer]
        code.extend_from_slice(&relative(&code, at + TRAMPOLINE - 8)?);
        debug_assert_eq!(code.len() as u64, COPIED);
        code.extend_from_slice(copied);
        code.push(0xe9); // jmp back
        code.extend_from_slice(&relative(&code, self.end())?);
        code.resize(TRAMPOLINE as usize - 8, 0xcc);
        code.extend_from_slice(&(EXTRA_TEXT + OFFSET as u64).to_le_bytes());
        Some(code)
    }

    /// Where in the guest's own code a thread is that is at `offset` in the trampoline.
    pub fn original_ip(&self, offset: u64) -> u64 {
        if offset == UNPATCHED + 2 {
            return self.addr + 2;
        }
        match offset.checked_sub(COPIED) {
            // Nothing has happened yet that the guest could see.
            None => self.addr,
            Some(done) => self.end().min(self.addr + 2 + done),
        }
    }

    /// Where a thread goes on that is to go on at `ip` in the site: `None` if that is outside, or at the jump itself.
    pub fn moved_ip(&self, ip: u64, trampoline: u64) -> Option<u64> {
        let offset = ip.checked_sub(self.addr)?;
        let copied = self.copied.iter().any(|&start| u64::from(start) == offset && offset < JUMP as u64);
        copied.then(|| trampoline + COPIED + offset - 2)
    }
}

/// Whether the two bytes at `addr` are padding behind a function: one instruction that does nothing, or traps, and no place
/// where a function would be aligned to.
fn is_padding(addr: u64, bytes: &[u8]) -> bool {
    const ALIGNMENT: u64 = 16;
    let is_start = |addr: u64| addr.is_multiple_of(ALIGNMENT);
    if is_start(addr) || is_start(addr + 1) {
        return false;
    }
    if bytes.starts_with(&[0xcc, 0xcc]) {
        return true;
    }
    let padding = Decoder::with_ip(64, bytes, addr, DecoderOptions::NONE).decode();
    padding.code().mnemonic() == iced_x86::Mnemonic::Nop && padding.len() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLIBC: [u8; 16] =
        [0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x4e, 0xc3, 0x0f, 0x1f, 0x44, 0, 0];

    #[test]
    fn decodes_what_the_c_library_has() {
        let site = Site::decode(0x7f00_0000_1000, &GLIBC).unwrap();
        assert_eq!((site.original.len(), &site.copied[..]), (8, &[2u8][..]));
        let short = [0x0f, 0x05, 0x89, 0xc2, 0x83, 0xf8, 0x01, 0xc3];
        assert_eq!(Site::decode(0x1000, &short).unwrap().copied, [2, 4]);
    }

    #[test]
    fn decodes_wrappers() {
        let wrapper = [0x0f, 0x05, 0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x90, 0x90];
        let site = Site::decode(0x1005, &wrapper).unwrap();
        assert_eq!((&site.copied[..], site.original.len()), (&[2u8][..], JUMP));
        assert!(site.trampoline(0x7000_0000).is_some());
        // The next function could begin at 0x1010.
        assert_eq!(Site::decode(0x100d, &wrapper), None);
    }

    #[test]
    fn refuses_what_cannot_be_moved() {
        let cases: [&[u8]; 7] = [
            &[0x0f, 0x05, 0xc3, 0x90, 0x90, 0x90],       // ret, and single nops
            &[0x0f, 0x05, 0xc3, 0x48, 0x89, 0xe5],       // ret, and code
            &[0x0f, 0x05, 0xeb, 0x10, 0x90, 0x90],       // jmp
            &[0x0f, 0x05, 0x48, 0x8b, 0x05, 1, 0, 0, 0], // mov rax, [rip + 1]
            &[0x0f, 0x05, 0x90, 0x48, 0x85, 0xc0],       // nop, then test
            &[0x0f, 0x05, 0x48, 0x3d, 0x00],             // cut
            &[0xcd, 0x80, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0xc3], // int 0x80
        ];
        for bytes in cases {
            assert_eq!(Site::decode(0x1000, bytes), None, "{bytes:x?}");
        }
    }

    #[test]
    fn jumps_guard_the_instructions_they_cover() {
        let site = Site::decode(0x7f00_0000_1003, &GLIBC).unwrap();
        let area = 0x7f00_0000_1003u64.wrapping_add_signed(DISTANCES[0]) & !0xfff;
        let found: Vec<_> = (0..512).filter_map(|slot| site.jump(area + slot * TRAMPOLINE)).collect();
        assert!(found.len() >= 20, "{}", found.len());
        for jump in found {
            assert!(jump[0] == 0xe9 && INVALID.contains(&jump[2]) && INVALID.contains(&jump[4]));
        }
        assert_eq!(site.jump(0x1000), None);
        for distance in DISTANCES {
            let top = (distance as i32).to_le_bytes()[3];
            assert!(INVALID.contains(&top), "{top:x}");
        }
    }

    #[test]
    fn trampolines_decode_as_meant() {
        let site = Site::decode(0x7f00_0000_1003, &GLIBC).unwrap();
        let at = 0x7eff_d000_0080;
        let code = site.trampoline(at).unwrap();
        assert_eq!(code.len() as u64, TRAMPOLINE);
        let mut decoder = Decoder::with_ip(64, &code, at, DecoderOptions::NONE);
        let mut starts = Vec::new();
        let mut last = None;
        while decoder.ip() < at + COPIED + 6 + 5 {
            let instruction = decoder.decode();
            assert!(!instruction.is_invalid());
            starts.push(instruction.ip() - at);
            last = Some(instruction.near_branch_target());
        }
        for offset in [0, UNPATCHED, UNPATCHED + 2, UNPATCHED + 4, COPIED, COPIED + 6] {
            assert!(starts.contains(&offset), "{offset}");
        }
        assert_eq!(last, Some(site.end()));
        assert_eq!(site.original_ip(0), site.addr);
        assert_eq!(site.original_ip(UNPATCHED + 2), site.addr + 2);
        assert_eq!(site.original_ip(COPIED), site.addr + 2);
        assert_eq!(site.original_ip(COPIED + 6), site.end());
        assert_eq!(site.moved_ip(site.addr, at), None);
        assert_eq!(site.moved_ip(site.addr + 2, at), Some(at + COPIED));
        assert_eq!(site.moved_ip(site.end(), at), None);
    }
}
