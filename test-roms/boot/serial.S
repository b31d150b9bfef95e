//! Text on the serial line, polled. Assembled three times, for 16-, 32- and 64-bit code.
//!
//! Every routine keeps all registers but the flags.

#include "serial.inc"

CODE_SECTION

// Sends AL.
.globl putc
putc:
    push R(dx)
    push R(ax)
    mov edx, COM1 + UART_LSR
2:  in al, dx
    test al, LSR_THRE           // is there room for a character?
    jz 2b
    pop R(ax)
    mov edx, COM1 + UART_THR
    out dx, al
    pop R(dx)
    inc dword ptr ds:[V_COLUMN]
    ret

// Prints the string at CS:ESI that ends in a zero byte. LF becomes CR LF, and colours
// (ESC [ ... m) do not move the column.
.globl puts
puts:
    push R(ax)
    push R(si)
2:  .byte 0x2E                  // CS: the strings are in the ROM, and so is the code
    lodsb
    test al, al
    jz 5f
    cmp al, LF
    je 3f
    cmp al, ESC
    je 4f
    call putc
    jmp 2b
3:  mov al, CR
    call putc
    mov al, LF
    call putc
    mov dword ptr ds:[V_COLUMN], 0
    jmp 2b
4:  call putc
    dec dword ptr ds:[V_COLUMN]
    cmp al, 'm'
    je 2b
    .byte 0x2E
    lodsb
    jmp 4b
5:  pop R(si)
    pop R(ax)
    ret

// Prints spaces up to column ECX.
.globl pad_to
pad_to:
    push R(ax)
    mov al, ' '
2:  cmp dword ptr ds:[V_COLUMN], ecx
    jae 3f
    call putc
    jmp 2b
3:  pop R(ax)
    ret

// Prints the low ECX hexadecimal digits of EAX.
.globl put_hex
put_hex:
    push R(ax)
    push R(bx)
    push R(cx)
    mov ebx, eax
2:  dec ecx
    js 4f
    mov eax, ebx
    shl ecx, 2
    shr eax, cl
    shr ecx, 2
    and al, 0x0F
    add al, '0'
    cmp al, '9'
    jbe 3f
    add al, 'A' - '9' - 1
3:  call putc
    jmp 2b
4:  pop R(cx)
    pop R(bx)
    pop R(ax)
    ret

// Prints EAX in decimal with commas, right-aligned in at least ECX columns.
.globl put_dec
put_dec:
    push R(ax)
    push R(bx)
    push R(cx)
    push R(dx)
    push R(si)
    push R(di)
    mov ebx, 10
    mov edi, V_DIGITS_END       // digits come out last one first
    mov esi, 3                  // digits left before a comma
2:  test esi, esi
    jnz 3f
    dec edi
    mov byte ptr [edi], ','
    mov esi, 3
3:  xor edx, edx
    div ebx
    add dl, '0'
    dec edi
    mov byte ptr [edi], dl
    dec esi
    test eax, eax
    jnz 2b
    mov eax, V_DIGITS_END
    sub eax, edi                // length
    sub ecx, eax
    mov al, ' '
4:  dec ecx
    js 5f
    call putc
    jmp 4b
5:  mov al, byte ptr [edi]
    call putc
    inc edi
    cmp edi, V_DIGITS_END
    jb 5b
    pop R(di)
    pop R(si)
    pop R(dx)
    pop R(cx)
    pop R(bx)
    pop R(ax)
    ret

#if BITS == 64
// Prints RAX as 16 hexadecimal digits.
.globl put_hex64
put_hex64:
    push rax
    shr rax, 32
    SAY_HEX 8
    pop rax
    SAY_HEX 8
    ret
#endif
