/* What the programs of this directory share: system calls, output, and attempts.
 *
 * They are static i386 programs without a C library, so that nothing but the source decides what
 * they execute, and run in a guest, in another monitor's guest and on the host alike.
 *
 * Each result is one line, "R3:<program>/<name>:<outcome>". An attempt is a few instructions whose
 * end is either a signal, of which everything that the kernel tells is the outcome, or "ran".
 */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* Linux's numbers, asm/unistd_32.h */
enum {
    SYS_exit = 1, SYS_fork = 2, SYS_read = 3, SYS_write = 4, SYS_open = 5, SYS_close = 6,
    SYS_execve = 11, SYS_getpid = 20, SYS_ptrace = 26, SYS_pause = 29, SYS_kill = 37,
    SYS_pipe = 42, SYS_munmap = 91, SYS_ioperm = 101, SYS_setitimer = 104, SYS_iopl = 110,
    SYS_wait4 = 114, SYS_sigreturn = 119, SYS_uname = 122, SYS_modify_ldt = 123,
    SYS_mprotect = 125, SYS_getppid = 64, SYS_sched_yield = 158, SYS_nanosleep = 162, SYS_mremap = 163,
    SYS_vm86 = 166, SYS_rt_sigreturn = 173, SYS_rt_sigaction = 174, SYS_rt_sigprocmask = 175,
    SYS_sigaltstack = 186, SYS_mmap2 = 192, SYS_setgroups32 = 206, SYS_setgid32 = 214,
    SYS_setuid32 = 213, SYS_getuid32 = 199, SYS_madvise = 219, SYS_gettid = 224,
    SYS_set_thread_area = 243, SYS_exit_group = 252, SYS_clock_gettime = 265,
    SYS_memfd_create = 356,
};
enum { SIGILL = 4, SIGTRAP = 5, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9, SIGUSR1 = 10, SIGSEGV = 11,
       SIGALRM = 14, SIGCHLD = 17, SIGCONT = 18, SIGSTOP = 19, SIGSYS = 31 };
enum { PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4, RW = 3, RX = 5, RWX = 7 };
enum { MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20, MAP_NORESERVE = 0x4000 };

/* A system call by int 0x80; missing arguments are whatever lies on the stack. */
long sys(long number, ...);

/* A signal frame's registers, asm/sigcontext.h. */
struct sigcontext {
    u32 gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax, trapno, err, eip, cs, eflags,
        esp_at_signal, ss, fpstate, oldmask, cr2;
};
struct ucontext {
    u32 flags, link, stack_sp, stack_flags, stack_size;
    struct sigcontext mc;
    u32 sigmask[2];
};
struct siginfo {
    int signo, error, code;
    u32 addr;
    u32 rest[28];
};

/* How an attempt ended. */
struct outcome {
    int sig; /* 0: it ran to its end */
    int code;
    u32 addr, trapno, err, eip, cr2, eflags, esp, eax, cs, ds, ss;
};
extern struct outcome outcome;

/* Runs code at this address, which ends by jumping to attempt_end. EAX and EDX hold `eax` and
 * `edx` then, ECX 0x11111111, EBX 0x22222222, ESI 0x33333333, EDI 0x44444444, EBP 0x55555555. */
int attempt_with(const void *code, u32 eax, u32 edx);
static inline int attempt(const void *code) { return attempt_with(code, 0, 0); }
extern u8 attempt_end[];
/* The segments' selectors as the kernel set them. */
extern u32 data_selector, code_selector;
/* Set where attempts may end with other segments in DS and ES. */
extern u32 reload_segments;

/* Code with a name. At its end it goes on to attempt_end. */
#define CODE(name, text)                                                        \
    extern const u8 name[];                                                     \
    __asm__(".pushsection .text\n.globl " #name "\n" #name ":\n" text           \
            "\n.code32\njmp attempt_end\n.popsection\n")

/* The program: its arguments, and what it is called in results. */
int main(int argc, char **argv);
extern const char *program;
extern u32 *auxv;

/* "R3:<program>/<name>:<value>". %s %d %u %x as usual, one line at once. */
void result(const char *name, const char *format, ...);
void say(const char *format, ...);
/* The outcome of an attempt at `code`, with EIP relative to it. */
void report(const char *name, const void *code);

void handle(int sig, void (*handler)(int, struct siginfo *, struct ucontext *), u32 flags);
void *map(u32 address, u32 size, int prot, int flags);
int fork_(void);
int wait_for(int pid);
void quit(int status) __attribute__((noreturn));
/* Milliseconds of the monotonic clock. */
u32 now_ms(void);
u32 rounds(u32 n, u32 seed);
/* Computes for some 15 ms without a trap, so that what can run directly does afterwards. */
u32 warm(void);
/* Stands before the names of results. */
extern const char *phase;
/* Ends an attempt that goes on for longer, by SIGALRM; 0: no more. */
void alarm_ms(u32 ms);
void sleep_ms(u32 ms);
/* From root to an ordinary user. */
void drop_privileges(void);
int equal(const char *a, const char *b);
u32 number(const char *text);
void *memset(void *to, int byte, u32 size);
void *memcpy(void *to, const void *from, u32 size);

#define SA_SIGINFO 4u
#define SA_RESTORER 0x04000000u
#define SA_ONSTACK 0x08000000u
#define SA_NODEFER 0x40000000u

#endif
