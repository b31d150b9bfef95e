//! The first and only process of a guest that goes the kernel's paths, each many times over.
//!
//! For each path it prints
//!
//!     === BEGIN name
//!     === END name count
//!
//! and nothing in between; the time between the two lines is taken by who reads them, as a guest's
//! clock may go wrong. At the end it powers the machine off.

#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define PAGE 4096ul
#define MIB (1ul << 20)

static void check(int good, const char *what)
{
    if (good)
        return;
    perror(what);
    tcdrain(1);
    reboot(RB_POWER_OFF);
}

static char *map(size_t size, int protection)
{
    char *at = mmap(0, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED, "mmap");
    madvise(at, size, MADV_NOHUGEPAGE);
    return at;
}

static void touch(char *at, size_t size)
{
    for (size_t i = 0; i < size; i += PAGE)
        ((volatile char *)at)[i]++;
}

static void reap(pid_t child)
{
    int status = -1;
    check(waitpid(child, &status, 0) == child && status == 0, "waitpid");
}

/// A system call that does next to nothing.
static void path_syscall(int count)
{
    while (count--)
        syscall(SYS_getppid);
}

/// The first access to pages that are only promised.
static void path_fault(int count)
{
    const size_t size = 16 * MIB;
    for (size_t done = 0; done < (size_t)count; done += size / PAGE) {
        char *at = map(size, PROT_READ | PROT_WRITE);
        touch(at, size);
        munmap(at, size);
    }
}

static void path_fork(int count)
{
    while (count--) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (!child)
            _exit(0);
        reap(child);
    }
}

static void path_exec(int count)
{
    while (count--) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (!child) {
            execl("/init", "init", "exit", (char *)0);
            _exit(1);
        }
        reap(child);
    }
}

/// Fork, and pages that both then write to.
static void path_copy(int count)
{
    const size_t size = 4 * MIB;
    char *at = map(size, PROT_READ | PROT_WRITE);
    touch(at, size);
    for (size_t done = 0; done < (size_t)count; done += size / PAGE) {
        pid_t child = fork();
        check(child >= 0, "fork");
        touch(at, size);
        if (!child)
            _exit(0);
        reap(child);
    }
    munmap(at, size);
}

/// A byte goes to another process and back: two changes of context.
static void path_pipe(int count)
{
    int there[2], back[2];
    char byte = 1;
    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    check(child >= 0, "fork");
    if (!child) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            check(write(back[1], &byte, 1) == 1, "write");
        _exit(0);
    }
    close(there[0]);
    while (count--)
        check(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "pipe");
    close(there[1]);
    close(back[0]);
    close(back[1]);
    reap(child);
}

/// A mapping of four pages, one of them used.
static void path_mmap(int count)
{
    while (count--) {
        char *at = map(4 * PAGE, PROT_READ | PROT_WRITE);
        *at = 1;
        munmap(at, 4 * PAGE);
    }
}

/// Rights of 64 pages taken and given, each page used in between.
static void path_mprotect(int count)
{
    const size_t size = 64 * PAGE;
    char *at = map(size, PROT_READ | PROT_WRITE);
    while (count--) {
        check(mprotect(at, size, PROT_READ) == 0, "mprotect");
        for (size_t i = 0; i < size; i += PAGE)
            (void)((volatile char *)at)[i];
        check(mprotect(at, size, PROT_READ | PROT_WRITE) == 0, "mprotect");
        touch(at, size);
    }
    munmap(at, size);
}

/// Page tables that come and go: pages 2 MiB apart, moved to another place.
static void path_tables(int count)
{
    const size_t size = 64 * MIB, step = 2 * MIB;
    while (count--) {
        char *at = map(size, PROT_READ | PROT_WRITE);
        for (size_t i = 0; i < size; i += step)
            at[i] = 1;
        char *to = mremap(at, size, 2 * size, MREMAP_MAYMOVE);
        check(to != MAP_FAILED, "mremap");
        munmap(to, 2 * size);
    }
}

typedef int function(int);

/// A function that adds `constant` 16 times: mov eax, ARGUMENT; add eax, constant; ...; ret.
static size_t write_code(unsigned char *to, int constant)
{
#ifdef __x86_64__
    static const unsigned char load[] = { 0x89, 0xF8 };
#else
    static const unsigned char load[] = { 0x8B, 0x44, 0x24, 0x04 };
#endif
    unsigned char *at = to;
    memcpy(at, load, sizeof load);
    at += sizeof load;
    for (int i = 0; i < 16; i++) {
        *at++ = 0x05;
        memcpy(at, &constant, sizeof constant);
        at += sizeof constant;
    }
    *at++ = 0xC3;
    return at - to;
}

static void call(void *code, int constant)
{
    check(((function *)code)(1) == 1 + 16 * constant, "generated code");
}

/// Code that is written to new pages, made executable and run ten times, as a module's is.
static void path_load(int count)
{
    const size_t size = 4 * PAGE;
    while (count--) {
        unsigned char *at = (unsigned char *)map(size, PROT_READ | PROT_WRITE);
        for (size_t i = 0; i < size; i += 512)
            write_code(at + i, count + i);
        check(mprotect(at, size, PROT_READ | PROT_EXEC) == 0, "mprotect");
        for (int again = 0; again < 10; again++)
            for (size_t i = 0; i < size; i += 512)
                call(at + i, count + i);
        munmap(at, size);
    }
}

/// Code that is changed where it stands and run ten times, as a compiler's at run time is.
static void path_patch(int count)
{
    unsigned char *at = (unsigned char *)map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    while (count--) {
        write_code(at, count);
        for (int again = 0; again < 10; again++)
            call(at, count);
    }
    munmap(at, PAGE);
}

static volatile int signals;

static void on_signal(int number)
{
    (void)number;
    signals++;
}

static void path_signal(int count)
{
    signal(SIGUSR1, on_signal);
    signals = 0;
    for (int i = 0; i < count; i++)
        raise(SIGUSR1);
    check(signals == count, "signal");
}

/// A file of 16 KiB is made, written, read and removed, in memory.
static void path_file(int count)
{
    static char data[16384];
    while (count--) {
        int file = open("/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
        check(file >= 0, "open");
        check(write(file, data, sizeof data) == sizeof data, "write");
        check(pread(file, data, sizeof data, 0) == sizeof data, "read");
        close(file);
        unlink("/file");
    }
}

static const struct path {
    const char *name;
    void (*go)(int count);
    int count;
} paths[] = {
    { "syscall", path_syscall, 600000 },
    { "fault", path_fault, 65536 },
    { "fork", path_fork, 600 },
    { "exec", path_exec, 250 },
    { "copy", path_copy, 32768 },
    { "pipe", path_pipe, 20000 },
    { "mmap", path_mmap, 4000 },
    { "mprotect", path_mprotect, 6000 },
    { "tables", path_tables, 1500 },
    { "load", path_load, 600 },
    { "patch", path_patch, 40000 },
    { "signal", path_signal, 50000 },
    { "file", path_file, 3000 },
};

static void say(const char *word, const struct path *path)
{
    char line[80];
    int length = snprintf(line, sizeof line, "=== %s %s %d\n", word, path->name, path->count);
    check(write(1, line, length) == length, "write");
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "exit") == 0)
        return 0;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        // once outside the measurement, so that the first does not pay for what all need
        paths[i].go(1);
        say("BEGIN", &paths[i]);
        tcdrain(1);
        paths[i].go(paths[i].count);
        say("END", &paths[i]);
        tcdrain(1);
    }
    say("DONE", &paths[0]);
    tcdrain(1);
    reboot(RB_POWER_OFF);
    return 1;
}
