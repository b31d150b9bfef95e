//! Where things are in memory, for C and assembly. All of it is mapped one to one.
//!
//! 0 to 400000h belongs to the supervisor, but for the 64 KiB segments of virtual-8086 mode;
//! 400000h to 600000h to everyone, from 600000h on to the supervisor.

#pragma once

// What the controller and the code that enters and leaves share.
#define CONTEXT         0xA000
#define RECORD          0xA200
#define HOME_ESP        0xA3F0
#define HAS_CR4         0xA3F4
#define HAS_EFER        0xA3F8

// Segments of real and virtual-8086 mode.
#define LOW_CODE        0x10000
#define LOW_DATA        0x20000
#define LOW_STACK       0x30000
#define LOW_END         0x40000
#define LOW_STACK_TOP   0xFF00          // SP, with room above it

// The controller's stack: it runs in flat 32-bit protected mode without paging.
#define HOME_STACK_TOP  0x3F0000

// Programs under test: code, data, stacks.
#define USER_CODE       0x400000
#define USER_DATA       0x410000
#define USER_STACK_TOP  0x42FF00
#define USER_END        0x600000
#define KERNEL_CODE     0x600000
#define KERNEL_DATA     0x610000
#define KERNEL_STACK_TOP 0x62FF00       // of programs that run in ring 0
#define RING0_STACK_TOP 0x63FF00        // what the TSS names for ring 0
#define RING1_STACK_TOP 0x64FF00
#define RING2_STACK_TOP 0x65FF00
#define IST1_STACK_TOP  0x66FF00        // for double faults in long mode
#define IST2_STACK_TOP  0x67FF00
#define TABLES          0x680000        // page tables
#define PAGES           0x700000        // page frames that tests map
#define MAPPED_END      0x800000
#define LARGE_PAGE      0x800000        // a frame of 4 MiB, not mapped one to one

// Selectors. The order is what SYSENTER, SYSEXIT, SYSCALL and SYSRET want.
#define SEL_CODE32      0x08
#define SEL_DATA        0x10
#define SEL_USER_CODE32 0x1B
#define SEL_USER_DATA   0x23
#define SEL_USER_CODE64 0x2B
#define SEL_USER_DATA2  0x33
#define SEL_CODE64      0x38
#define SEL_CODE16      0x40
#define SEL_DATA16      0x48
#define SEL_USER_CODE16 0x53
#define SEL_USER_DATA16 0x5B
#define SEL_TSS         0x60            // 16 bytes
#define SEL_LDT         0x70            // 16 bytes
#define SEL_TEST        0x80            // free for tests, up to the end
#define GDT_ENTRIES     64

// The members of struct context and struct record.
#define CTX_R           0               // 16 registers of 8 bytes
#define CTX_RIP         128
#define CTX_RFLAGS      136
#define CTX_CR0         144
#define CTX_CR3         152
#define CTX_CR4         160
#define CTX_EFER        168
#define CTX_DR          176             // DR0 to DR3
#define CTX_DR7         208
#define CTX_CS          216             // each segment register in 4 bytes
#define CTX_SS          220
#define CTX_DS          224
#define CTX_ES          228
#define CTX_FS          232
#define CTX_GS          236
#define CTX_LDTR        240
#define CTX_TR          244
#define CTX_KIND        248
#define CTX_GDTR        252             // 10 bytes each, and 2 unused
#define CTX_IDTR        264
#define CTX_SIZE        280

#define REC_R           0
#define REC_VECTOR      128
#define REC_SP          132             // 8 bytes at 136: the handler's stack pointer
#define REC_HANDLER_SP  136
#define REC_CR0         144
#define REC_CR2         152
#define REC_CR3         160
#define REC_CR4         168
#define REC_DR6         176
#define REC_DR7         184
#define REC_DS          192
#define REC_ES          196
#define REC_FS          200
#define REC_GS          204
#define REC_SS          208             // the handler's
#define REC_CS          212
#define REC_FLAGS       216             // the handler's
#define REC_FRAME       224             // 40 dwords from the handler's stack pointer on
#define REC_FRAME_DWORDS 40
#define REC_SIZE        384

#define KIND_PROTECTED  0
#define KIND_LONG       1
#define KIND_REAL       2

// Control registers.
#define CR0_PE          (1 << 0)
#define CR0_MP          (1 << 1)
#define CR0_EM          (1 << 2)
#define CR0_TS          (1 << 3)
#define CR0_ET          (1 << 4)
#define CR0_NE          (1 << 5)
#define CR0_WP          (1 << 16)
#define CR0_AM          (1 << 18)
#define CR0_NW          (1 << 29)
#define CR0_CD          (1 << 30)
#define CR0_PG          0x80000000
#define CR4_VME         (1 << 0)
#define CR4_PVI         (1 << 1)
#define CR4_TSD         (1 << 2)
#define CR4_DE          (1 << 3)
#define CR4_PSE         (1 << 4)
#define CR4_PAE         (1 << 5)
#define CR4_MCE         (1 << 6)
#define CR4_PGE         (1 << 7)
#define CR4_PCE         (1 << 8)
#define CR4_OSFXSR      (1 << 9)
#define CR4_OSXMMEXCPT  (1 << 10)
#define CR4_UMIP        (1 << 11)
#define CR4_LA57        (1 << 12)
#define CR4_FSGSBASE    (1 << 16)
#define CR4_PCIDE       (1 << 17)
#define CR4_OSXSAVE     (1 << 18)
#define CR4_SMEP        (1 << 20)
#define CR4_SMAP        (1 << 21)
#define CR4_PKE         (1 << 22)
#define EFER            0xC0000080
#define EFER_SCE        (1 << 0)
#define EFER_LME        (1 << 8)
#define EFER_LMA        (1 << 10)
#define EFER_NXE        (1 << 11)
#define HOME_CR0        (CR0_PE | CR0_ET | CR0_NE)

#define FLAGS_TF        (1 << 8)
#define FLAGS_IF        (1 << 9)
#define FLAGS_OF        (1 << 11)
#define FLAGS_NT        (1 << 14)
#define FLAGS_RF        (1 << 16)
#define FLAGS_VM        (1 << 17)
#define FLAGS_AC        (1 << 18)
#define FLAGS_VIF       (1 << 19)
#define FLAGS_VIP       (1 << 20)
#define FLAGS_ID        (1 << 21)
