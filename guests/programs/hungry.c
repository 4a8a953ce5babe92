/* Memory: an area touched at random, then a child that shares it until one of them writes.
 * Prints the time that each part took by the guest's clock.
 *
 * `hungry MEBIBYTES TOUCHES`
 */
#include "guest.h"

static u32 expected(u32 page, u32 times)
{
    return (page * 2654435761u) + times;
}

static void timed(const char *name, u32 from)
{
    say("T3:%s/%s:%u", program, name, (now_ms() - from + 5) / 10);
}

/* Every page once in a random order (an odd step walks a power of two), then at random. */
static u32 *area, pages;

static u32 *word(u32 page)
{
    return area + page * 1024 + page % 1021;
}

static u32 verify(u32 times, u32 changed_mask, u32 changed_times)
{
    u32 wrong = 0;
    for (u32 p = 0; p < pages; p++)
        wrong += *word(p) != expected(p, (p & changed_mask) == 0 && changed_mask ? changed_times : times);
    return wrong;
}

int main(int argc, char **argv)
{
    u32 mebibytes = argc > 1 ? number(argv[1]) : 64, touches = argc > 2 ? number(argv[2]) : 100000;
    drop_privileges();
    pages = mebibytes * 256;
    area = map(0, mebibytes << 20, RW, MAP_PRIVATE | MAP_NORESERVE);
    if ((u32)area > 0xfffff000) {
        result("memory", "none");
        return 1;
    }
    u32 from = now_ms(), page = 12345 % pages;
    for (u32 i = 0; i < pages; i++) {
        page = (page + 0x9e37u * 2 + 1) % pages;
        *word(page) = expected(page, 0);
    }
    timed("first_touch", from);
    result("first_touch", "%u wrong", verify(0, 0, 0));
    from = now_ms();
    u32 seed = 99, sum = 0;
    for (u32 i = 0; i < touches; i++) {
        seed = rounds(1, seed);
        sum += *word(seed % pages) ^ i;
    }
    timed("random_reads", from);
    from = now_ms();
    u32 writes_wrong = 0;
    for (u32 i = 0; i < touches; i++) {
        seed = rounds(1, seed);
        u32 *w = word(seed % pages);
        writes_wrong += *w - expected(seed % pages, 0) > touches;
        ++*w;
    }
    for (u32 p = 0; p < pages; p++)
        *word(p) = expected(p, 1);
    timed("random_writes", from);
    result("random_writes", "%u wrong, %s", writes_wrong, sum ? "read" : "zero");
    from = now_ms();
    int child = fork_();
    if (child == 0) {
        /* Every eighth page is copied. */
        u32 wrong = verify(1, 0, 0);
        for (u32 p = 0; p < pages; p += 8)
            *word(p) = expected(p, 2);
        wrong += verify(1, 7, 2);
        quit(wrong != 0);
    }
    for (u32 p = 4; p < pages; p += 8)
        *word(p) = expected(p, 3);
    int status = wait_for(child);
    timed("fork_and_copies", from);
    u32 wrong = 0;
    for (u32 p = 0; p < pages; p++)
        wrong += *word(p) != expected(p, p % 8 == 4 ? 3 : 1);
    result("parent", "%u wrong", wrong);
    result("child", "status %x", status);
    return 0;
}
