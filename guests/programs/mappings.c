/* A model of an address space against the real one: pages are mapped, written, protected, moved,
 * forgotten, shared and forked at random, and every access must find the content or the fault
 * that the model predicts, while the process computes in between.
 *
 * `mappings STEPS SEED [hot]`
 */
#include "guest.h"

enum { PAGES = 192, BASE = 0x40000000, AWAY = 0x50000000 };
enum state { NONE, SEALED, READABLE, WRITABLE };
static struct { u8 state; u32 content; } model[PAGES];
static u32 seed, wrong, steps_done;

CODE(fetch, "mov (%eax), %eax");
CODE(store, "mov %edx, (%eax)");
CODE(add_one, "lock incl (%eax)");

static u32 any(u32 n)
{
    return (seed = rounds(1, seed)) % n;
}

static u32 address(u32 page)
{
    return BASE + page * 4096 + page * 68 % 4096;
}

static void bad(const char *what, u32 page)
{
    if (wrong++ < 10)
        result("WRONG", "%s page %u state %u content %x: signal %d err %x cr2 %x eax %x step %u", what,
               page, model[page].state, model[page].content, outcome.sig, outcome.err, outcome.cr2,
               outcome.eax, steps_done);
}

/* One access, compared with what the model says. */
static void check(u32 page)
{
    u32 a = address(page), kind = any(3), value = any(0x7fffffff) + 1;
    u8 state = model[page].state;
    attempt_with(kind == 0 ? fetch : kind == 1 ? store : add_one, a, value);
    int allowed = kind == 0 ? state >= READABLE : state == WRITABLE;
    if (allowed != (outcome.sig == 0)) {
        bad("allowed differs", page);
        return;
    }
    if (!allowed) {
        u32 present = outcome.err & 1;
        /* Whether a page that may be read is present depends on who touched it before. */
        u32 expected = 4u | (kind ? 2u : 0) | (state == READABLE ? present : 0);
        if (outcome.sig != SIGSEGV || outcome.cr2 != a || outcome.addr != a || outcome.err != expected
            || outcome.code != (state == NONE ? 1 : 2))
            bad("fault differs", page);
        return;
    }
    if (kind == 0 && outcome.eax != model[page].content)
        bad("content differs", page);
    else if (kind == 1)
        model[page].content = value;
    else if (kind == 2)
        model[page].content++;
}

static void set(u32 from, u32 count, u8 state, int clear)
{
    for (u32 i = from; i < from + count; i++) {
        if (state == NONE || clear)
            model[i].content = 0;
        model[i].state = state;
    }
}

static void step(int may_fork)
{
    u32 page = any(PAGES), count = 1 + any(PAGES - page < 12 ? PAGES - page : 12);
    u32 a = BASE + page * 4096;
    int mapped = 1;
    for (u32 i = page; i < page + count; i++)
        mapped &= model[i].state != NONE;
    switch (any(may_fork ? 11 : 10)) {
    case 0: {
        map(a, count * 4096, RW, MAP_PRIVATE | MAP_FIXED | (any(2) ? 0x8000 /* populate */ : 0));
        set(page, count, WRITABLE, 1);
        break;
    }
    case 1:
        sys(SYS_munmap, a, count * 4096);
        set(page, count, NONE, 1);
        break;
    case 2:
    case 3:
        if (mapped) {
            u8 state = (u8)(SEALED + any(3));
            sys(SYS_mprotect, a, count * 4096, state == SEALED ? 0 : state == READABLE ? PROT_READ : RW);
            set(page, count, state, 0);
        }
        break;
    case 4:
        if (mapped) {
            sys(SYS_madvise, a, count * 4096, 4 /* dontneed */);
            for (u32 i = page; i < page + count; i++)
                model[i].content = 0;
        }
        break;
    case 5:
        /* Away and back to another place: the same pages at other addresses. */
        if (model[page].state != NONE) {
            u32 to = any(PAGES);
            if (to == page)
                break;
            sys(SYS_mremap, a, 4096, 4096, 3 /* maymove fixed */, AWAY);
            sys(SYS_mremap, AWAY, 4096, 4096, 3, BASE + to * 4096);
            model[to] = model[page];
            set(page, 1, NONE, 1);
            /* the offset within the page goes with the address, so the content is found anew */
            if (model[to].state == WRITABLE)
                *(u32 *)address(to) = model[to].content;
            else {
                map(BASE + to * 4096, 4096, RW, MAP_PRIVATE | MAP_FIXED);
                set(to, 1, WRITABLE, 1);
            }
        }
        break;
    case 10: {
        /* Both sides see what was there, and write for themselves. */
        int child = fork_();
        if (child == 0) {
            wrong = 0;
            for (u32 i = 0; i < 300; i++) {
                if (i % 100 == 0)
                    warm();
                check(any(PAGES));
            }
            quit(wrong != 0);
        }
        for (u32 i = 0; i < 100; i++)
            check(any(PAGES));
        if (wait_for(child) != 0)
            bad("in the child", page);
        break;
    }
    default:
        for (u32 i = page; i < page + count; i++)
            check(i);
    }
}

int main(int argc, char **argv)
{
    u32 steps = argc > 1 ? number(argv[1]) : 3000;
    seed = argc > 2 ? number(argv[2]) : 1;
    int hot = argc > 3 && equal(argv[3], "hot");
    phase = hot ? "hot-" : "";
    drop_privileges();
    for (u32 i = 0; i < steps; i++) {
        steps_done = i;
        if (hot && i % 50 == 0)
            warm();
        step(i % 16 == 0);
        for (u32 k = 0; k < 4; k++)
            check(any(PAGES));
    }
    result("model", "%u wrong in %u steps", wrong, steps);
    return 0;
}
