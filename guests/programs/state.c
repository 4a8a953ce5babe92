/* Register state of several processes that compute at once, with signals in between: general
 * registers, x87, MXCSR, XMM and, where the processor has them, YMM registers.
 *
 * `state PROCESSES ROUNDS [hot]`
 */
#include "guest.h"

/* A round loads all registers with the process's own values, computes for a while without a
 * memory access, and compares. */
struct image {
    u32 ymm[8][8]; /* 0 */
    u32 ymm_after[8][8]; /* 256 */
    double x87[8]; /* 512 */
    double x87_after[8]; /* 576 */
    u32 gpr[5]; /* 640: EBX ESI EDI EBP EDX */
    u32 gpr_after[5]; /* 660 */
    u32 mxcsr, mxcsr_after; /* 680 */
    u32 control, control_after; /* 688 */
    u32 esp; /* 696 */
} __attribute__((aligned(64)));

static struct image image;
static volatile u32 alarms;

void round_sse(struct image *image, u32 n);
void round_avx(struct image *image, u32 n);
/* EAX is the image, kept on the stack; the loop counts in ECX and touches only EAX besides. */
#define ROUND(name, load, store)                                                                  \
    __asm__(".globl " name "\n" name ":\npush %ebp\npush %edi\npush %esi\npush %ebx\n"             \
            "mov 20(%esp), %eax\nmov 24(%esp), %ecx\n"                                           \
            "mov %esp, 696(%eax)\n" load                                                           \
            "fninit\nfldcw 688(%eax)\nldmxcsr 680(%eax)\n"                                         \
            "fldl 568(%eax)\nfldl 560(%eax)\nfldl 552(%eax)\nfldl 544(%eax)\n"                     \
            "fldl 536(%eax)\nfldl 528(%eax)\nfldl 520(%eax)\nfldl 512(%eax)\n"                     \
            "mov 640(%eax), %ebx\nmov 644(%eax), %esi\nmov 648(%eax), %edi\n"                      \
            "mov 652(%eax), %ebp\nmov 656(%eax), %edx\n"                                           \
            "1: rol $1, %ebx\nrol $1, %esi\nrol $1, %edi\nrol $1, %ebp\nrol $1, %edx\n"            \
            "fincstp\ndec %ecx\njnz 1b\n"                                                          \
            "mov %ebx, 660(%eax)\nmov %esi, 664(%eax)\nmov %edi, 668(%eax)\n"                      \
            "mov %ebp, 672(%eax)\nmov %edx, 676(%eax)\n"                                           \
            "fstpl 576(%eax)\nfstpl 584(%eax)\nfstpl 592(%eax)\nfstpl 600(%eax)\n"                 \
            "fstpl 608(%eax)\nfstpl 616(%eax)\nfstpl 624(%eax)\nfstpl 632(%eax)\n"                 \
            "stmxcsr 684(%eax)\nfnstcw 692(%eax)\n" store                                          \
            "pop %ebx\npop %esi\npop %edi\npop %ebp\nret\n")
ROUND("round_sse",
      "movaps 0(%eax), %xmm0\nmovaps 32(%eax), %xmm1\nmovaps 64(%eax), %xmm2\nmovaps 96(%eax), %xmm3\n"
      "movaps 128(%eax), %xmm4\nmovaps 160(%eax), %xmm5\nmovaps 192(%eax), %xmm6\nmovaps 224(%eax), %xmm7\n",
      "movaps %xmm0, 256(%eax)\nmovaps %xmm1, 288(%eax)\nmovaps %xmm2, 320(%eax)\nmovaps %xmm3, 352(%eax)\n"
      "movaps %xmm4, 384(%eax)\nmovaps %xmm5, 416(%eax)\nmovaps %xmm6, 448(%eax)\nmovaps %xmm7, 480(%eax)\n");
ROUND("round_avx",
      "vmovaps 0(%eax), %ymm0\nvmovaps 32(%eax), %ymm1\nvmovaps 64(%eax), %ymm2\nvmovaps 96(%eax), %ymm3\n"
      "vmovaps 128(%eax), %ymm4\nvmovaps 160(%eax), %ymm5\nvmovaps 192(%eax), %ymm6\nvmovaps 224(%eax), %ymm7\n",
      "vmovaps %ymm0, 256(%eax)\nvmovaps %ymm1, 288(%eax)\nvmovaps %ymm2, 320(%eax)\nvmovaps %ymm3, 352(%eax)\n"
      "vmovaps %ymm4, 384(%eax)\nvmovaps %ymm5, 416(%eax)\nvmovaps %ymm6, 448(%eax)\nvmovaps %ymm7, 480(%eax)\n");

static int have_avx(void)
{
    u32 eax = 1, ebx, ecx, edx, low, high;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
    if ((ecx & 0x18000000) != 0x18000000)
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 6) == 6;
}

/* Clobbers everything that it can. */
static void on_alarm(int sig, struct siginfo *info, struct ucontext *context)
{
    static const u32 junk = 0xdeadbeef;
    (void)sig, (void)info, (void)context;
    __asm__ volatile("fninit\nfldl2e\nmovd %0, %%xmm0\npshufd $0, %%xmm0, %%xmm1\nmovaps %%xmm1, %%xmm7\n"
                     "pxor %%xmm2, %%xmm2\nmovaps %%xmm2, %%xmm3" : : "m"(junk));
    alarms++;
}

static u32 work(u32 who, u32 count, int avx)
{
    u32 wrong = 0;
    for (u32 r = 0; r < count; r++) {
        u32 seed = who * 1000 + r + 1;
        for (u32 i = 0; i < 64; i++)
            image.ymm[i / 8][i % 8] = seed = rounds(1, seed);
        for (u32 i = 0; i < 8; i++)
            image.x87[i] = (double)(int)(who * 100 + r * 10 + i);
        for (u32 i = 0; i < 5; i++)
            image.gpr[i] = seed = rounds(1, seed);
        image.mxcsr = 0x1f80 | who % 4 << 13;
        image.control = 0x37f | who % 4 << 10;
        /* A multiple of 32 (rotations) and of 8 (the x87 stack's top): all comes back to its place. */
        const u32 n = 1u << 20;
        (avx ? round_avx : round_sse)(&image, n);
        for (u32 i = 0; i < 64; i++)
            wrong += (avx || i % 8 < 4) && image.ymm_after[i / 8][i % 8] != image.ymm[i / 8][i % 8];
        for (u32 i = 0; i < 16; i++)
            wrong += ((u32 *)image.x87_after)[i] != ((u32 *)image.x87)[i];
        for (u32 i = 0; i < 5; i++)
            wrong += image.gpr_after[i] != image.gpr[i];
        wrong += (image.mxcsr_after & 0xffc0) != (image.mxcsr & 0xffc0);
        wrong += (image.control_after & 0xffff) != image.control;
    }
    return wrong;
}

int main(int argc, char **argv)
{
    u32 processes = argc > 1 ? number(argv[1]) : 4, count = argc > 2 ? number(argv[2]) : 20;
    int children[16], avx = have_avx();
    if (processes > 16)
        processes = 16;
    drop_privileges();
    for (u32 who = 0; who < processes; who++) {
        children[who] = fork_();
        if (children[who] == 0) {
            struct { u32 period[2], first[2]; } timer = { { 0, 7000 + who * 1000 }, { 0, 5000 } };
            handle(SIGALRM, on_alarm, 0);
            sys(SYS_setitimer, 0, &timer, 0);
            u32 wrong = work(who + 1, count, avx && who % 2 == 0);
            quit(wrong ? 1 : alarms ? 0 : 2);
        }
    }
    u32 good = 0;
    for (u32 who = 0; who < processes; who++)
        good += wait_for(children[who]) == 0;
    result("kept", "%u of %u processes", good, processes);
    result("avx", avx ? "used" : "absent");
    return 0;
}
