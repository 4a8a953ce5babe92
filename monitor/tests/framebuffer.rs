//! Guest code that draws into the linear framebuffer, and who asks what it drew.

use ring3_monitor::rig::{Form, Rig, RigStop};
use ring3_translator::addr::PAGE_SIZE;
use ring3_translator::state::{cr0, cr4};

const CODE: u64 = 0x40_0000;
const MEMORY: u64 = 16 << 20;
/// Pages that [`draw`] fills.
const PAGES: u32 = 256;

/// mov edi, at; mov ecx, count; mov eax, 5aa5a55ah; l: mov [edi], eax; add edi, 4; dec ecx; jnz l; int3
fn draw(at: u32, count: u32) -> Vec<u8> {
    let mut code = vec![0xbf];
    code.extend(at.to_le_bytes());
    code.push(0xb9);
    code.extend(count.to_le_bytes());
    code.extend([0xb8, 0x5a, 0xa5, 0xa5, 0x5a]);
    code.extend([0x89, 0x07, 0x83, 0xc7, 0x04, 0x49, 0x75, 0xf8, 0xcc]);
    code
}

fn run(rig: &mut Rig, code: &[u8]) {
    rig.write(CODE, code);
    rig.state_mut().rip = CODE;
    rig.state_mut().set_reg32(4, 0x20_0000);
    let stop = rig.run();
    assert!(matches!(stop, RigStop::Event(_)), "{stop:?}");
}

fn base(rig: &mut Rig) -> u32 {
    rig.vcpu_mut().core().mmu.ram.video_base().unwrap() as u32
}

/// Times that translated code was left or called the monitor for an access.
fn detours(rig: &mut Rig) -> u64 {
    let core = rig.vcpu_mut().core();
    core.stats.soft_misses + core.mmu.stats.window_misses + core.mmu.stats.logged_writes
}

fn harvest(rig: &mut Rig) -> Vec<u32> {
    let (st, core) = rig.vcpu_mut().parts_mut();
    core.mmu.harvest_video(st)
}

/// Large pages map the framebuffer, beside what [`Rig::enable_paging`] maps.
fn page(rig: &mut Rig, form: Form) {
    rig.enable_paging(&[], &[]);
    let (base, user) = (base(rig), if form == Form::Window { 0 } else { 4 });
    for i in 0..4 {
        let pde = (base + (i << 22)) | 0xe3 | user;
        let at = MEMORY - PAGE_SIZE + u64::from((base >> 22) + i) * 4;
        rig.write(at, &pde.to_le_bytes());
    }
    rig.state_mut().cr4 |= cr4::PSE;
    assert!(rig.state().cr0 & cr0::PG != 0);
}

#[test]
fn drawing_leaves_the_cache_once_a_page_at_most() {
    for form in [Form::Window, Form::Soft] {
        for paging in [false, true] {
            let mut rig = Rig::new(MEMORY, form).unwrap();
            if paging {
                page(&mut rig, form);
            }
            let base = base(&mut rig);
            run(&mut rig, &draw(base, PAGES * 1024));
            let (stores, left) = (u64::from(PAGES) * 1024, detours(&mut rig));
            let most = if form == Form::Window {
                2
            } else {
                u64::from(PAGES) + 8
            };
            assert!(
                left <= most,
                "{form:?} {paging}: {left} for {stores} stores"
            );
            let mut last = [0; 4];
            rig.read(u64::from(base) + stores * 4 - 4, &mut last);
            assert_eq!(last, [0x5a, 0xa5, 0xa5, 0x5a]);
            println!("{form:?}, paging {paging}: {left} detours for {stores} stores");
        }
    }
}

#[test]
fn a_harvest_tells_what_was_drawn_since_the_last() {
    for form in [Form::Window, Form::Soft, Form::Step] {
        let mut rig = Rig::new(MEMORY, form).unwrap();
        page(&mut rig, form);
        let base = base(&mut rig);
        // Mapped writable already when the watch begins.
        run(&mut rig, &draw(base, 2 * 1024));
        assert_eq!(harvest(&mut rig).len(), 4096, "{form:?}");
        assert_eq!(harvest(&mut rig), [0u32; 0], "{form:?}");
        run(&mut rig, &draw(base + 5 * 4096 - 4, 3));
        run(&mut rig, &draw(base + 4096, 1));
        assert_eq!(harvest(&mut rig), [1, 4, 5], "{form:?}");
        let before = detours(&mut rig);
        run(&mut rig, &draw(base + 9 * 4096, 1024));
        run(&mut rig, &draw(base + 9 * 4096, 1024));
        let after = detours(&mut rig);
        assert_eq!(harvest(&mut rig), [9], "{form:?}");
        if form == Form::Window {
            // The fault that logs the page, and nothing after it.
            assert_eq!(after - before, 1);
        }
    }
}

#[test]
fn code_in_video_memory_runs_and_changes() {
    for form in [Form::Window, Form::Soft] {
        let mut rig = Rig::new(MEMORY, form).unwrap();
        page(&mut rig, form);
        let base = base(&mut rig);
        for value in [7u8, 8] {
            // mov eax, value; int3
            rig.write(u64::from(base), &[0xb8, value, 0, 0, 0, 0xcc]);
            rig.state_mut().rip = base.into();
            rig.run();
            assert_eq!(rig.state().reg32(0), u32::from(value), "{form:?}");
        }
        // mov byte [base+1], 9; int3
        let mut code = vec![0xc6, 0x05];
        code.extend((base + 1).to_le_bytes());
        code.extend([9, 0xcc]);
        run(&mut rig, &code);
        rig.state_mut().rip = base.into();
        rig.run();
        assert_eq!(rig.state().reg32(0), 9, "{form:?}");
    }
}
