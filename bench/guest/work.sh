#!/bin/sh
# First process of a Debian guest that works with real programs. For each job it prints
#   === BEGIN <name> <command>
#   === END <name>
# and after them === DONE; a result that is not what it must be ends it with === WRONG. Who reads the
# lines takes the time. What the jobs compute is the same on every machine.

export PATH=/usr/sbin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
cd /tmp || exit 1

finish() {
    echo "=== $1"
    stty opost
    poweroff -ff
}

# A C file of 4,000 functions; its program prints 31992000: 0 * 4 + 1 * 4 + ... + 3999 * 4.
source() {
    awk 'BEGIN {
        print "#include <stdio.h>"
        for (i = 0; i < 4000; i++) {
            printf "static long f%d(long x) {\n", i
            printf "    long sum = 0;\n    for (int i = 0; i < 4; i++)\n"
            printf "        sum += x > 0 ? x * %d : %d;\n    return sum;\n}\n", i, i
        }
        print "int main(void) {\n    long sum = 0;"
        for (i = 0; i < 4000; i++) printf "    sum += f%d(1);\n", i
        print "    printf(\"%ld\\n\", sum);\n    return 0;\n}"
    }' >big.c
}

compile() {
    for _ in 1 2 3 4 5; do tcc -o big big.c; done
    ./big
}

python() {
    for _ in 1 2 3 4 5; do python3 -c 'import json, re; print(len(json.dumps([1])))'; done | tail -n 1
}

# Dictionaries and strings; 2 to the 10,000th has 3,011 digits.
bigpython() {
    python3 -c '
words = {}
for i in range(200000):
    key = "k%d" % (i * 7919 % 5003)
    words[key] = words.get(key, 0) + i
print(len(words), sum(words.values()) % 1000003, len(str(2 ** 10000)))'
}

sqlite() {
    sqlite3 :memory: '
        create table t(a integer primary key, b integer, c text);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 40000)
            insert into t select i, i * 7919 % 10007, hex(i) from n;
        create index tb on t(b);
        select count(*), sum(a) from t where b between 1000 and 2000;
        select count(distinct c) from t join (select b as d from t where a < 2000) on b = d;' |
        paste -s -d ' '
}

digest() {
    head -c 16777216 /dev/zero | openssl dgst -sha256 -r | cut -c1-16
}

# RSA of 2,048 bits: eight signatures, each checked.
sign() {
    for i in 1 2 3 4 5 6 7 8; do
        echo "$i" | openssl dgst -sha256 -sign /bench/key.pem -out signature.$i
        echo "$i" | openssl dgst -sha256 -prverify /bench/key.pem -signature signature.$i
    done | sort -u
}

lines() {
    seq 1 60000 | awk '{ print $1 * 7919 % 60013 }' | sort -n | uniq | wc -l
}

run() {
    echo "=== BEGIN $1 -"
    result=$("$1")
    echo "=== END $1 -"
    [ "$result" = "$2" ] || finish "WRONG $1: $result"
}

source
echo "=== GUEST UP"
stty -F /dev/console opost
run compile 31992000
run python 3
run bigpython "5003 840003 3011"
run sqlite "4002|80045337 7996"
run digest "080acf35a507ac98"
run sign "Verified OK"
run lines 60000
finish DONE
