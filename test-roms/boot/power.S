//! Switching the machine off through the PIIX4's ACPI power management. Assembled
//! three times, for 16-, 32- and 64-bit code.

#include "power.inc"

CODE_SECTION

// Reads configuration register AL of the device in ECX (bus 0, device << 3 | function) to EAX.
pci_select:
    push R(dx)
    push R(cx)
    movzx eax, al
    shl ecx, 8
    or eax, ecx
    or eax, PCI_ENABLE
    mov edx, PCI_ADDRESS
    out dx, eax
    mov edx, PCI_DATA
    in eax, dx
    pop R(cx)
    pop R(dx)
    ret

// Finds the PIIX4's power management function on bus 0: ECX = where, EAX = PIIX4_PM_ID if it is
// there.
.globl find_piix4_pm
find_piix4_pm:
    xor ecx, ecx
2:  xor eax, eax                // register 0: device ID and vendor ID
    call pci_select
    cmp eax, PIIX4_PM_ID
    je 3f
    inc ecx
    cmp ecx, 256
    jb 2b
3:  ret

// Switches off. Does not return; a board without a PIIX4 is halted.
.globl power_off
power_off:
    cli
    mov edx, COM1 + UART_LSR
2:  in al, dx                   // let the last character out
    test al, LSR_TEMT
    jz 2b
    call find_piix4_pm
    cmp eax, PIIX4_PM_ID
    jne 3f
    mov edx, PCI_DATA
    mov al, PIIX4_PMBASE
    call pci_select
    mov eax, PM_IO_BASE | 1     // bit 0 says I/O space and reads as one
    out dx, eax
    mov al, PIIX4_PMREGMISC
    call pci_select
    or al, PMREGMISC_PMIOSE
    out dx, eax
    mov edx, PM_IO_BASE + PM1_CNT
    mov eax, PM1_CNT_SLP_EN
    out dx, ax
3:  hlt                         // with interrupts off, only an NMI or SMI wakes this up
    jmp 3b
