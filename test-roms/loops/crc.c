//! CRC-32 (IEEE 802.3) with a table of 256 entries.

#include "loop.h"

#define SIZE 65536
#define ROUNDS 180
#define POLYNOMIAL 0xEDB88320u

static u32 table[256];
static u8 data[SIZE];

const u64 loop_expected = 0x0EDE986B;

static void fill_table(void)
{
    for (u32 i = 0; i < 256; i++) {
        u32 crc = i;
        for (u32 bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        table[i] = crc;
    }
}

static u32 crc32(u32 crc, const u8 *bytes, u32 size)
{
    crc = ~crc;
    for (u32 i = 0; i < size; i++)
        crc = table[(crc ^ bytes[i]) & 0xFF] ^ crc >> 8;
    return ~crc;
}

u64 loop_body(void)
{
    u32 state = 1;
    fill_table();
    if (crc32(0, (const u8 *)"123456789", 9) != 0xCBF43926) // the usual check value
        return 0;
    for (u32 i = 0; i < SIZE; i++)
        data[i] = next_random(&state);
    u32 crc = 0;
    for (u32 round = 0; round < ROUNDS; round++)
        crc = crc32(crc, data, SIZE);
    return crc;
}
