// A database benchmark over an in-memory SQLite: inserts, an index, joins, aggregates, a recursive
// query, updates and deletes. Prints one checksum line, so that a recorded, an optimised and a
// natively run copy can be compared. Usage: bench [SCALE]; the work grows linearly with SCALE.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "sqlite3.h"

static sqlite3 *db;
static uint64_t checksum = 0xcbf29ce484222325u;
static uint64_t random_state = 0x9e3779b97f4a7c15u;

static void fail(const char *what) {
    fprintf(stderr, "bench: %s: %s\n", what, db ? sqlite3_errmsg(db) : "no database");
    exit(1);
}

// xorshift64: the same numbers on every machine.
static uint32_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

static void mix(const unsigned char *text) {
    for (; text && *text; text++) checksum = (checksum ^ *text) * 0x100000001b3u;
    checksum = (checksum ^ 0xff) * 0x100000001b3u;
}

static void execute(const char *sql) {
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) fail(sql);
}

static sqlite3_stmt *prepare(const char *sql) {
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK) fail(sql);
    return statement;
}

// Runs a query to its end and mixes every column of every row into the checksum.
static void query(const char *sql, int parameter) {
    sqlite3_stmt *statement = prepare(sql);
    if (sqlite3_bind_parameter_count(statement) > 0) sqlite3_bind_int(statement, 1, parameter);
    int status;
    while ((status = sqlite3_step(statement)) == SQLITE_ROW)
        for (int column = 0; column < sqlite3_column_count(statement); column++)
            mix(sqlite3_column_text(statement, column));
    if (status != SQLITE_DONE) fail(sql);
    sqlite3_finalize(statement);
}

static void fill(int scale) {
    execute("CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, city TEXT);"
            "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INT, item TEXT, price REAL, day INT);");
    static const char *cities[] = {"Oslo", "Lima", "Kyoto", "Accra", "Quito", "Turin", "Perth"};
    char text[64];
    execute("BEGIN");
    sqlite3_stmt *customer = prepare("INSERT INTO customer(name, city) VALUES(?1, ?2)");
    for (int i = 0; i < 20 * scale; i++) {
        snprintf(text, sizeof text, "customer-%08x", next_random());
        sqlite3_bind_text(customer, 1, text, -1, SQLITE_TRANSIENT);
        sqlite3_bind_text(customer, 2, cities[next_random() % 7], -1, SQLITE_STATIC);
        if (sqlite3_step(customer) != SQLITE_DONE) fail("insert customer");
        sqlite3_reset(customer);
    }
    sqlite3_finalize(customer);
    sqlite3_stmt *order =
        prepare("INSERT INTO orders(customer, item, price, day) VALUES(?1, ?2, ?3, ?4)");
    for (int i = 0; i < 200 * scale; i++) {
        snprintf(text, sizeof text, "item %u of kind %c", next_random() % 500, 'a' + next_random() % 26);
        sqlite3_bind_int(order, 1, 1 + (int)(next_random() % (20u * (unsigned)scale)));
        sqlite3_bind_text(order, 2, text, -1, SQLITE_TRANSIENT);
        sqlite3_bind_double(order, 3, (next_random() % 100000) / 100.0);
        sqlite3_bind_int(order, 4, (int)(next_random() % 365));
        if (sqlite3_step(order) != SQLITE_DONE) fail("insert order");
        sqlite3_reset(order);
    }
    sqlite3_finalize(order);
    execute("COMMIT");
    execute("CREATE INDEX orders_by_customer ON orders(customer);"
            "CREATE INDEX orders_by_item ON orders(item, day);");
}

static void analyse(int scale) {
    query("SELECT c.city, count(*), round(sum(o.price), 2), avg(o.day) FROM orders o"
          " JOIN customer c ON c.id = o.customer GROUP BY c.city ORDER BY 3 DESC", 0);
    query("SELECT substr(item, -1) AS kind, count(DISTINCT customer), max(price) FROM orders"
          " WHERE item LIKE '%kind%' GROUP BY kind HAVING count(*) > 2 ORDER BY kind", 0);
    query("WITH RECURSIVE walk(n, x) AS (SELECT 0, 27 UNION ALL"
          " SELECT n + 1, CASE WHEN x % 2 THEN 3 * x + 1 ELSE x / 2 END FROM walk WHERE n < ?1)"
          " SELECT count(*), max(x), sum(x) FROM walk", 100 * scale);
    query("SELECT day / 30 AS month, sum(price), group_concat(id % 10, '') FROM orders"
          " GROUP BY month ORDER BY month", 0);
    query("SELECT o.item, (SELECT count(*) FROM orders p WHERE p.item = o.item AND p.day < o.day)"
          " FROM orders o WHERE o.price > 990 ORDER BY o.item, o.id LIMIT 200", 0);
    for (int i = 0; i < 20 * scale; i++)
        query("SELECT sum(price), count(*) FROM orders WHERE customer = ?1", 1 + i);
}

static void change(void) {
    execute("BEGIN;"
            "UPDATE orders SET price = price * 1.05, day = (day + 7) % 365 WHERE customer % 3 = 0;"
            "DELETE FROM orders WHERE price < 50;"
            "COMMIT;");
    query("SELECT count(*), sum(day), round(total(price), 2) FROM orders", 0);
    query("SELECT c.name, count(o.id) FROM customer c LEFT JOIN orders o ON o.customer = c.id"
          " GROUP BY c.id ORDER BY 2 DESC, 1 LIMIT 50", 0);
}

int main(int argc, char **argv) {
    int scale = argc > 1 ? atoi(argv[1]) : 10;
    if (scale < 1 || scale > 100000) {
        fprintf(stderr, "bench: scale must be between 1 and 100000\n");
        return 2;
    }
    if (sqlite3_open(":memory:", &db) != SQLITE_OK) fail("open");
    fill(scale);
    analyse(scale);
    change();
    sqlite3_close(db);
    printf("scale %d checksum %016llx\n", scale, (unsigned long long)checksum);
    return 0;
}
