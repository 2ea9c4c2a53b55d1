/* What the C interface must do, and what it must refuse. Run in an empty directory that holds `plain.safetensors`:
 * `w`, 256 x 256 F32, and `b`, 16 F32. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <weightmark.h>

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

enum { ROWS = 256, ELEMENTS = ROWS * 256, BYTES = ELEMENTS * 4 };

static wm_error *error;

/* Ends the program if a call that must succeed does not. */
static void ok(wm_code code)
{
    if (code != WM_OK) {
        fprintf(stderr, "failed with %d: %s\n", (int)code, error ? wm_error_message(error) : "no error");
        exit(1);
    }
    CHECK(error == NULL);
}

/* Expects that a call failed with this code and cause, and what it says. */
static void fails(wm_code code, wm_code expected, const char *cause, const char *part)
{
    if (code != expected || error == NULL || strcmp(wm_error_cause(error), cause) != 0 ||
        strstr(wm_error_message(error), part) == NULL) {
        fprintf(stderr, "code %d, expected %d (%s, %s): %s: %s\n", (int)code, (int)expected, cause, part,
                error ? wm_error_cause(error) : "", error ? wm_error_message(error) : "no error");
        exit(1);
    }
    CHECK(wm_error_code(error) == expected);
    CHECK(wm_error_free(error) == WM_OK);
    CHECK(wm_error_free(error) == WM_MISUSE);
    error = NULL;
}

static wm_options *new_options(void)
{
    wm_options *options = NULL;
    ok(wm_options_new(&options, &error));
    return options;
}

static wm_options *with_identity(const char *path)
{
    wm_options *options = new_options();
    ok(wm_options_identity(options, path, &error));
    return options;
}

static void slurp(const char *path, unsigned char **bytes, size_t *size)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    *size = (size_t)ftell(file);
    rewind(file);
    *bytes = malloc(*size);
    CHECK(fread(*bytes, 1, *size, file) == *size);
    fclose(file);
}

static void keys_and_encryption(void)
{
    wm_report *report = NULL;
    ok(wm_keygen(NULL, "identity", "id", &report, &error));
    CHECK(strstr(wm_report_json(report), "\"schema\":\"weightmark/keygen/1\"") != NULL);
    CHECK(wm_report_free(report) == WM_OK);
    fails(wm_keygen(NULL, "identity", "id", NULL, &error), WM_INPUT, "io", "id");
    fails(wm_keygen(NULL, "none", "no", NULL, &error), WM_MISUSE, "misuse", "no key of this kind");
    fails(wm_keygen(NULL, "owner", "no", NULL, &error), WM_MISUSE, "misuse", "name");
    ok(wm_keygen(NULL, "signing", "signer", NULL, &error));
    ok(wm_keygen(NULL, "symmetric", "shared", NULL, &error));
    wm_options *options = new_options();
    ok(wm_options_name(options, "acme", &error));
    ok(wm_keygen(options, "owner", "owner", NULL, &error));
    fails(wm_keygen(options, "signing", "no", NULL, &error), WM_MISUSE, "misuse", "no use for the option name");
    ok(wm_options_free(options));

    options = new_options();
    fails(wm_encrypt(options, "plain.safetensors", "sealed.safetensors", NULL, &error), WM_MISUSE, "misuse", "recipient");
    fails(wm_options_recipient(options, "no-such-file", &error), WM_INPUT, "io", "no-such-file");
    ok(wm_options_recipient(options, "id.pub", &error));
    ok(wm_options_context(options, "acme/m@1", &error));
    ok(wm_encrypt(options, "plain.safetensors", "sealed.safetensors", &report, &error));
    CHECK(strstr(wm_report_json(report), "acme/m@1") != NULL);
    CHECK(wm_report_free(report) == WM_OK && wm_report_free(report) == WM_MISUSE);
    CHECK(wm_report_json(report) == NULL);
    ok(wm_options_public_index(options, &error));
    ok(wm_encrypt(options, "plain.safetensors", "listed.safetensors", NULL, &error));
    fails(wm_decrypt(options, "sealed.safetensors", "no", NULL, &error), WM_MISUSE, "misuse", "no use for the option");
    ok(wm_options_free(options));

    options = new_options();
    ok(wm_options_identity(options, "shared", &error));
    fails(wm_decrypt(options, "sealed.safetensors", "no", NULL, &error), WM_KEY, "no-match", "sealed.safetensors");
    ok(wm_options_identity(options, "id", &error));
    ok(wm_decrypt(options, "sealed.safetensors", "opened.safetensors", NULL, &error));
    ok(wm_options_context(options, "acme/m@2", &error));
    fails(wm_decrypt(options, "sealed.safetensors", "no", NULL, &error), WM_REFUSED, "context-mismatch", "acme/m@");
    CHECK(access("no", F_OK) != 0);
    ok(wm_options_free(options));

    unsigned char *plain, *opened;
    size_t size, other;
    slurp("plain.safetensors", &plain, &size);
    slurp("opened.safetensors", &opened, &other);
    CHECK(size == other && memcmp(plain, opened, size) == 0);
    free(plain);
    free(opened);
}

static void reading(void)
{
    static unsigned char plain[BYTES], buffer[BYTES];
    static float numbers[ELEMENTS];
    wm_options *options = with_identity("id");
    wm_model *model = NULL;
    ok(wm_model_open(NULL, "plain.safetensors", &model, &error));
    ok(wm_model_read_tensor(model, "w", plain, BYTES, &error));
    ok(wm_model_free(model));
    fails(wm_model_open(options, "plain.safetensors", &model, &error), WM_REFUSED, "expected-encrypted", "plain");
    CHECK(model == NULL);
    ok(wm_model_open(options, "sealed.safetensors", &model, &error));
    CHECK(wm_model_tensors(model) == 2 && wm_model_files(model) == 1 && wm_model_verified(model) == NULL);
    wm_tensor w, b;
    ok(wm_model_find(model, "w", &w, &error));
    CHECK(w.nbytes == BYTES && w.rank == 2 && w.shape[0] == ROWS && w.elements == ELEMENTS);
    CHECK(strcmp(w.dtype, "F32") == 0 && strcmp(w.file, wm_model_file_path(model, 0)) == 0);
    ok(wm_model_tensor(model, 0, &b, &error));
    fails(wm_model_tensor(model, 2, &b, &error), WM_MISUSE, "misuse", "number");
    CHECK(b.name == NULL);
    fails(wm_model_find(model, "x", &w, &error), WM_INPUT, "unknown-tensor", "x");

    ok(wm_model_read_tensor(model, "w", buffer, BYTES, &error));
    CHECK(memcmp(plain, buffer, BYTES) == 0);
    fails(wm_model_read_tensor(model, "w", buffer, BYTES - 1, &error), WM_MISUSE, "misuse", "262143 bytes");
    fails(wm_model_read_tensor(model, "w", NULL, BYTES, &error), WM_MISUSE, "misuse", "buffer");
    fails(wm_model_read_tensor(model, "w", buffer, SIZE_MAX, &error), WM_MISUSE, "misuse", "buffer");
    fails(wm_model_read_tensor(model, "\xff", buffer, BYTES, &error), WM_MISUSE, "misuse", "UTF-8");
    memset(buffer, 0, sizeof buffer);
    ok(wm_model_read_rows(model, "w", 3, 5, buffer, 2 * 1024, &error));
    CHECK(memcmp(plain + 3 * 1024, buffer, 2 * 1024) == 0 && buffer[2 * 1024] == 0);
    fails(wm_model_read_rows(model, "w", 3, 5, buffer, 1024, &error), WM_MISUSE, "misuse", "2048");
    fails(wm_model_read_rows(model, "w", 255, 257, buffer, 2048, &error), WM_MISUSE, "misuse", "rows");
    fails(wm_model_read_rows(model, "w", 5, 3, buffer, 2048, &error), WM_MISUSE, "misuse", "rows");
    ok(wm_model_read_f32(model, "w", numbers, ELEMENTS, &error));
    CHECK(memcmp(plain, numbers, BYTES) == 0);
    fails(wm_model_read_f32(model, "w", numbers, ELEMENTS - 1, &error), WM_MISUSE, "misuse", "65536");
    fails(wm_model_read_f32(model, "w", (float *)((char *)numbers + 1), ELEMENTS, &error), WM_MISUSE, "misuse", "aligned");

    unsigned char *whole;
    size_t size;
    slurp("plain.safetensors", &whole, &size);
    const char *path = wm_model_file_path(model, 0);
    CHECK(wm_model_file_size(model, 0) == size && wm_model_file_size(model, 1) == 0 && wm_model_file_path(model, 1) == NULL);
    ok(wm_model_read_file_at(model, path, 7, buffer, 1000, &error));
    CHECK(memcmp(whole + 7, buffer, 1000) == 0);
    fails(wm_model_read_file_at(model, path, size - 1, buffer, 2, &error), WM_INPUT, "io", "ends before");
    fails(wm_model_read_file_at(model, path, UINT64_MAX, buffer, 2, &error), WM_INPUT, "io", "ends before");
    fails(wm_model_read_file_at(model, "../plain", 0, buffer, 2, &error), WM_MISUSE, "misuse", "no file of the model");
    wm_file *file = NULL;
    fails(wm_file_open(model, "other", &file, &error), WM_MISUSE, "misuse", "no file of the model");
    ok(wm_file_open(model, path, &file, &error));
    ok(wm_model_free(model)); /* the file stays open */
    CHECK(wm_file_size(file) == size);
    ok(wm_file_read_at(file, size - 9, buffer, 9, &error));
    CHECK(memcmp(whole + size - 9, buffer, 9) == 0);
    ok(wm_file_read_at(file, size, NULL, 0, &error));
    CHECK(wm_file_callback(file, 1, buffer, 9) == 0 && memcmp(whole + 1, buffer, 9) == 0);
    CHECK(wm_file_callback(file, size, buffer, 1) == WM_INPUT);
    free(whole);

    /* what is decrypted here is a source there */
    wm_sources *sources = NULL;
    ok(wm_sources_lone("m.safetensors", size, wm_file_callback, file, NULL, &sources, &error));
    ok(wm_model_open_sources(NULL, sources, &model, &error));
    ok(wm_sources_free(sources));
    ok(wm_model_read_tensor(model, "w", buffer, BYTES, &error));
    CHECK(memcmp(plain, buffer, BYTES) == 0);
    ok(wm_file_free(file));
    fails(wm_model_read_tensor(model, "w", buffer, BYTES, &error), WM_INPUT, "io", "callback returned 2");
    ok(wm_model_free(model));
    ok(wm_options_free(options));
}

static void bad_handles(void)
{
    char byte;
    wm_options *options = with_identity("id");
    wm_model *model = NULL;
    ok(wm_model_open(options, "sealed.safetensors", &model, &error));
    void *wild[] = {NULL, options, &byte, (void *)16, (void *)(UINTPTR_MAX & ~(uintptr_t)15), (char *)model + 16, (char *)model + 1};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        wm_tensor tensor;
        wm_model *no = wild[i];
        fails(wm_model_tensor(no, 0, &tensor, &error), WM_MISUSE, "misuse", "wm_model");
        fails(wm_model_read_tensor(no, "w", &byte, 1, &error), WM_MISUSE, "misuse", "wm_model");
        CHECK(wm_model_tensors(no) == 0 && wm_model_verified(no) == NULL && wm_model_file_path(no, 0) == NULL);
        CHECK(wm_model_free(no) == (no == NULL ? WM_OK : WM_MISUSE));
        CHECK(wm_file_size(wild[i]) == 0 && wm_report_json(wild[i]) == NULL && !wm_evidence_detected(wild[i]));
        CHECK(wm_evidence_z(wild[i]) != wm_evidence_z(wild[i])); /* not a number */
        CHECK(wm_error_message(wild[i]) == NULL && wm_error_code(wild[i]) == WM_MISUSE);
    }
    wm_model *other = (wm_model *)&byte;
    fails(wm_model_open((wm_options *)model, "sealed.safetensors", &other, &error), WM_MISUSE, "misuse", "not a wm_options");
    CHECK(other == NULL);
    fails(wm_options_policy(options, (wm_policy *)model, &error), WM_MISUSE, "misuse", "not a wm_policy");
    fails(wm_model_open_sources(options, (wm_sources *)model, &other, &error), WM_MISUSE, "misuse", "not a wm_sources");

    /* null pointers, with a place for the error and without */
    fails(wm_model_open(options, NULL, &other, &error), WM_MISUSE, "misuse", "NULL");
    fails(wm_model_open(options, "sealed.safetensors", NULL, &error), WM_MISUSE, "misuse", "NULL");
    CHECK(wm_model_open(options, NULL, NULL, NULL) == WM_MISUSE && wm_options_new(NULL, NULL) == WM_MISUSE);
    CHECK(wm_options_identity(NULL, "id", NULL) == WM_MISUSE && wm_options_identity(options, NULL, NULL) == WM_MISUSE);
    CHECK(wm_options_passphrase(options, NULL, NULL) == WM_MISUSE && wm_options_progress(NULL, NULL, NULL, NULL, NULL) == WM_MISUSE);
    CHECK(wm_encrypt(NULL, NULL, NULL, NULL, NULL) == WM_MISUSE && wm_sign(NULL, NULL, NULL, NULL) == WM_MISUSE);
    CHECK(wm_verify(NULL, NULL, NULL, NULL) == WM_MISUSE && wm_keygen(NULL, NULL, NULL, NULL, NULL) == WM_MISUSE);
    CHECK(wm_embed(NULL, NULL, NULL, NULL, NULL) == WM_MISUSE && wm_detect(NULL, NULL, NULL, NULL, NULL) == WM_MISUSE);
    CHECK(wm_lineage(NULL, NULL, NULL, NULL, NULL) == WM_MISUSE && wm_protect(NULL, NULL, NULL, NULL, NULL) == WM_MISUSE);
    CHECK(wm_policy_require(NULL, NULL, NULL) == WM_MISUSE && wm_policy_or(NULL, "signer.pub", NULL) == WM_MISUSE);
    CHECK(wm_sources_add(NULL, "a", 1, NULL, NULL, NULL, NULL) == WM_MISUSE && wm_sources_new(NULL, NULL, NULL) == WM_MISUSE);
    CHECK(wm_model_find(model, NULL, NULL, NULL) == WM_MISUSE && wm_file_open(model, NULL, NULL, NULL) == WM_MISUSE);
    CHECK(wm_model_read_tensor(model, NULL, NULL, 0, NULL) == WM_MISUSE && wm_error_free(NULL) == WM_OK);

    ok(wm_options_free(options));
    CHECK(wm_options_free(options) == WM_MISUSE);
    fails(wm_options_identity(options, "id", &error), WM_MISUSE, "misuse", "freed");
    wm_options *next = new_options(); /* takes the place, and is another */
    CHECK(next != options && wm_options_free(options) == WM_MISUSE);
    ok(wm_options_free(next));
    ok(wm_model_free(model));
    CHECK(wm_model_free(model) == WM_MISUSE && wm_model_tensors(model) == 0);
}

/* Storage of one's own. */
struct storage {
    unsigned char *bytes;
    size_t size;
    int status;
    int released;
    int calls;
};

static int read_storage(void *context, uint64_t offset, void *buffer, size_t len)
{
    struct storage *storage = context;
    __atomic_add_fetch(&storage->calls, 1, __ATOMIC_RELAXED);
    CHECK(offset + len <= storage->size);
    memcpy(buffer, storage->bytes + offset, len);
    return storage->status;
}

static void release_storage(void *context)
{
    struct storage *storage = context;
    storage->released++;
}

static void callbacks(void)
{
    static unsigned char buffer[BYTES];
    struct storage storage = {0};
    slurp("sealed.safetensors", &storage.bytes, &storage.size);
    wm_options *options = with_identity("id");
    wm_sources *sources = NULL;
    wm_model *model = NULL;
    fails(wm_sources_lone("../m", 1, read_storage, &storage, release_storage, &sources, &error), WM_INPUT, "io", "canonical");
    CHECK(storage.released == 1 && sources == NULL);
    fails(wm_sources_lone("m", 1, NULL, &storage, release_storage, &sources, &error), WM_MISUSE, "misuse", "function");
    CHECK(storage.released == 2);
    ok(wm_sources_lone("m.safetensors", storage.size, read_storage, &storage, release_storage, &sources, &error));
    fails(wm_sources_add(sources, "n", 1, read_storage, &storage, release_storage, &error), WM_MISUSE, "misuse", "lone");
    CHECK(storage.released == 3);
    ok(wm_model_open_sources(options, sources, &model, &error));
    ok(wm_sources_free(sources));
    ok(wm_model_read_tensor(model, "w", buffer, BYTES, &error));
    CHECK(storage.released == 3 && storage.calls > 0);
    storage.status = 42;
    fails(wm_model_read_tensor(model, "w", buffer, BYTES, &error), WM_INPUT, "io", "the callback returned 42");
    storage.status = 0;
    storage.bytes[storage.size - 100] ^= 1;
    fails(wm_model_read_tensor(model, "w", buffer, BYTES, &error), WM_REFUSED, "chunk-tampered", "");
    storage.bytes[storage.size - 100] ^= 1;
    ok(wm_model_free(model));
    CHECK(storage.released == 4);

    /* several files */
    ok(wm_sources_new("bucket", &sources, &error));
    struct storage config = {(unsigned char *)"{}", 2, 0, 0, 0}, plain = {0};
    slurp("plain.safetensors", &plain.bytes, &plain.size);
    ok(wm_sources_add(sources, "sub/m.safetensors", plain.size, read_storage, &plain, release_storage, &error));
    ok(wm_sources_add(sources, "config.json", 2, read_storage, &config, NULL, &error));
    ok(wm_sources_add(sources, "config.json", 2, read_storage, &config, release_storage, &error));
    fails(wm_model_open_sources(NULL, sources, &model, &error), WM_INPUT, "io", "twice");
    CHECK(config.released == 0);
    ok(wm_sources_free(sources));
    CHECK(config.released == 1 && plain.released == 1);
    ok(wm_sources_new("bucket", &sources, &error));
    ok(wm_sources_add(sources, "sub/m.safetensors", plain.size, read_storage, &plain, release_storage, &error));
    ok(wm_sources_add(sources, "config.json", 2, read_storage, &config, NULL, &error));
    fails(wm_model_open_sources(options, sources, &model, &error), WM_REFUSED, "expected-encrypted", "bucket");
    ok(wm_model_open_sources(NULL, sources, &model, &error));
    CHECK(wm_model_files(model) == 2 && strcmp(wm_model_file_path(model, 0), "config.json") == 0);
    wm_tensor w;
    ok(wm_model_find(model, "w", &w, &error));
    CHECK(strcmp(w.file, "sub/m.safetensors") == 0);
    ok(wm_model_free(model));
    CHECK(plain.released == 1);
    ok(wm_sources_free(sources));
    CHECK(plain.released == 2);
    ok(wm_options_free(options));
    free(plain.bytes);
    free(storage.bytes);
}

/* Progress: how it was called. */
struct watch {
    int inside, calls, cancel_at;
    uint64_t done, total;
    char task[32];
};

static void advance(void *context, const char *task, uint64_t done, uint64_t total)
{
    struct watch *watch = context;
    CHECK(__atomic_add_fetch(&watch->inside, 1, __ATOMIC_SEQ_CST) == 1);
    watch->calls++;
    watch->done = done;
    watch->total = total;
    snprintf(watch->task, sizeof watch->task, "%s", task);
    __atomic_sub_fetch(&watch->inside, 1, __ATOMIC_SEQ_CST);
}

static bool cancelled(void *context)
{
    struct watch *watch = context;
    CHECK(__atomic_add_fetch(&watch->inside, 1, __ATOMIC_SEQ_CST) == 1);
    bool stop = watch->cancel_at > 0 && watch->calls >= watch->cancel_at;
    __atomic_sub_fetch(&watch->inside, 1, __ATOMIC_SEQ_CST);
    return stop;
}

static void progress(void)
{
    struct watch watch = {0};
    wm_options *options = new_options();
    ok(wm_options_recipient(options, "id.pub", &error));
    ok(wm_options_progress(options, advance, cancelled, &watch, &error));
    ok(wm_encrypt(options, "plain.safetensors", "watched", NULL, &error));
    CHECK(watch.calls >= 2 && watch.done == watch.total && watch.total > BYTES && strcmp(watch.task, "encrypt") == 0);
    watch.cancel_at = 1;
    fails(wm_encrypt(options, "plain.safetensors", "stopped", NULL, &error), WM_CANCELLED, "cancelled", "cancelled");
    CHECK(access("stopped", F_OK) != 0);
    ok(wm_options_progress(options, NULL, NULL, NULL, &error));
    ok(wm_encrypt(options, "plain.safetensors", "unwatched", NULL, &error));
    ok(wm_options_free(options));
}

static void signing(void)
{
    wm_options *options = new_options(), *verifying = new_options();
    wm_report *report = NULL;
    wm_policy *policy = NULL;
    wm_model *model = NULL;
    fails(wm_sign(options, "plain.safetensors", NULL, &error), WM_MISUSE, "misuse", "signing_key");
    fails(wm_options_signing_key(options, "id", NULL, &error), WM_KEY, "malformed", "id");
    ok(wm_options_signing_key(options, "signer", NULL, &error));
    fails(wm_options_hash(options, "md5", &error), WM_MISUSE, "misuse", "hash");
    ok(wm_options_release(options, "acme/m", 3, 0, &error));
    ok(wm_sign(options, "plain.safetensors", &report, &error));
    CHECK(strstr(wm_report_json(report), "\"version\":3") != NULL);
    ok(wm_report_free(report));
    fails(wm_sign(options, "plain.safetensors", NULL, &error), WM_INPUT, "io", "plain.safetensors.sig");
    ok(wm_options_free(options));
    ok(wm_inspect("plain.safetensors", &report, &error));
    CHECK(strstr(wm_report_json(report), "\"encrypted\":false") && strstr(wm_report_json(report), "weightmark/inspect/1"));
    ok(wm_report_free(report));
    fails(wm_inspect("missing", &report, &error), WM_INPUT, "io", "missing");
    fails(wm_inspect("plain.safetensors", NULL, &error), WM_MISUSE, "misuse", "NULL");

    fails(wm_verify(verifying, "plain.safetensors", NULL, &error), WM_MISUSE, "misuse", "policy");
    fails(wm_policy_require("signer", &policy, &error), WM_KEY, "malformed", "signer");
    ok(wm_policy_require("signer.pub", &policy, &error));
    fails(wm_policy_revoke(policy, "XY", &error), WM_MISUSE, "misuse", "hexadecimal");
    fails(wm_policy_danger_ignore_path(policy, "/", &error), WM_MISUSE, "misuse", "nothing");
    ok(wm_policy_minimum_version(policy, 3, &error));
    ok(wm_policy_expect_name(policy, "acme/m", &error));
    ok(wm_policy_high_water(policy, "versions.json", &error));
    ok(wm_options_policy(verifying, policy, &error));
    ok(wm_verify(verifying, "plain.safetensors", &report, &error));
    CHECK(strstr(wm_report_json(report), "\"verified\":true") != NULL);
    ok(wm_report_free(report));
    ok(wm_model_open(verifying, "plain.safetensors", &model, &error));
    CHECK(strstr(wm_model_verified(model), "acme/m") != NULL);
    ok(wm_model_free(model));
    fails(wm_model_open(NULL, "plain.safetensors", &model, &error), WM_MISUSE, "misuse", "signed");
    ok(wm_policy_minimum_version(policy, 4, &error));
    ok(wm_verify(verifying, "plain.safetensors", NULL, &error)); /* the policy as it was when it was given */
    ok(wm_options_policy(verifying, policy, &error));
    fails(wm_verify(verifying, "plain.safetensors", NULL, &error), WM_REFUSED, "version", "4");
    ok(wm_policy_minimum_version(policy, 1, &error));
    ok(wm_options_policy(verifying, policy, &error));
    ok(wm_policy_free(policy));

    FILE *file = fopen("plain.safetensors", "r+b");
    CHECK(file != NULL && fseek(file, -1, SEEK_END) == 0);
    int last = fgetc(file);
    CHECK(fseek(file, -1, SEEK_END) == 0 && fputc(last ^ 1, file) != EOF && fclose(file) == 0);
    fails(wm_verify(verifying, "plain.safetensors", NULL, &error), WM_REFUSED, "digest-mismatch", "plain.safetensors");
    fails(wm_model_open(verifying, "plain.safetensors", &model, &error), WM_REFUSED, "digest-mismatch", "plain");
    file = fopen("plain.safetensors", "r+b");
    CHECK(file != NULL && fseek(file, -1, SEEK_END) == 0 && fputc(last, file) != EOF && fclose(file) == 0);
    ok(wm_options_free(verifying));
}

static void marking(void)
{
    wm_options *options = new_options();
    wm_report *report = NULL;
    wm_evidence *evidence = NULL;
    fails(wm_options_owner_key(options, "id", &error), WM_KEY, "malformed", "id");
    ok(wm_options_owner_key(options, "owner", &error));
    ok(wm_options_copy(options, "licensee-1", &error));
    ok(wm_embed(options, "plain.safetensors", "marked.safetensors", &report, &error));
    CHECK(strstr(wm_report_json(report), "relative_distortion") != NULL);
    ok(wm_report_free(report));
    ok(wm_options_copy(options, "licensee-2", &error));
    fails(wm_embed(options, "plain.safetensors", "no", NULL, &error), WM_MISUSE, "misuse", "label");
    ok(wm_detect(options, "plain.safetensors", "marked.safetensors", &evidence, &error));
    CHECK(wm_evidence_detected(evidence) && wm_evidence_log10_p(evidence) < -6 && wm_evidence_z(evidence) > 5);
    CHECK(strcmp(wm_evidence_copy(evidence), "licensee-1") == 0);
    CHECK(strstr(wm_evidence_json(evidence), "\"detected\":true") != NULL);
    ok(wm_evidence_free(evidence));
    ok(wm_detect(options, "plain.safetensors", "plain.safetensors", &evidence, &error));
    CHECK(!wm_evidence_detected(evidence) && wm_evidence_copy(evidence) == NULL);
    ok(wm_evidence_free(evidence));
    ok(wm_options_free(options));

    options = new_options();
    ok(wm_lineage(options, "plain.safetensors", "marked.safetensors", &report, &error));
    CHECK(strstr(wm_report_json(report), "related") != NULL);
    ok(wm_report_free(report));
    ok(wm_options_owner_key(options, "owner", &error));
    ok(wm_options_signing_key(options, "signer", NULL, &error));
    ok(wm_options_recipient(options, "id.pub", &error));
    ok(wm_options_copy(options, "licensee-1", &error));
    ok(wm_protect(options, "plain.safetensors", "protected", &report, &error));
    CHECK(strstr(wm_report_json(report), "root_digest") != NULL);
    ok(wm_report_free(report));
    ok(wm_options_free(options));

    wm_policy *policy = NULL;
    wm_model *model = NULL;
    options = with_identity("id");
    ok(wm_policy_require("signer.pub", &policy, &error));
    ok(wm_options_policy(options, policy, &error));
    ok(wm_model_open(options, "protected", &model, &error));
    CHECK(wm_model_verified(model) != NULL && wm_model_tensors(model) == 2);
    ok(wm_model_free(model));
    ok(wm_policy_free(policy));
    ok(wm_options_free(options));
}

static void paths_of_any_bytes(void)
{
    wm_options *options = new_options();
    wm_model *model = NULL;
    CHECK(mkdir("\xff\xfe", 0700) == 0);
    ok(wm_keygen(NULL, "identity", "\xff\xfe/id", NULL, &error));
    fails(wm_options_recipient(options, "\xff\xfe/id.pub", &error), WM_MISUSE, "misuse", "UTF-8");
    ok(wm_options_recipient(options, "id.pub", &error));
    ok(wm_encrypt(options, "plain.safetensors", "\xff\xfe/sealed", NULL, &error));
    ok(wm_options_free(options));
    options = with_identity("\xff\xfe/id");
    ok(wm_options_identity(options, "id", &error));
    ok(wm_model_open(options, "\xff\xfe/sealed", &model, &error));
    ok(wm_model_free(model));
    CHECK(rename("\xff\xfe/sealed", "\xff\xfe/\xfd") == 0);
    fails(wm_model_open(options, "\xff\xfe/\xfd", &model, &error), WM_INPUT, "io", "UTF-8");
    ok(wm_options_free(options));
}

static wm_model *shared;
static unsigned char expected[BYTES];

static void *read_often(void *unused)
{
    unsigned char *buffer = malloc(BYTES);
    for (int i = 0; i < 20; i++) {
        CHECK(wm_model_read_tensor(shared, "w", buffer, BYTES, NULL) == WM_OK);
        CHECK(memcmp(buffer, expected, BYTES) == 0);
    }
    free(buffer);
    return unused;
}

static void *read_until_freed(void *unused)
{
    unsigned char *buffer = malloc(BYTES);
    wm_code code;
    while ((code = wm_model_read_tensor(shared, "w", buffer, BYTES, NULL)) == WM_OK)
        CHECK(memcmp(buffer, expected, BYTES) == 0);
    CHECK(code == WM_MISUSE);
    free(buffer);
    return unused;
}

static void threads(void)
{
    pthread_t readers[3];
    wm_options *options = with_identity("id");
    ok(wm_model_open(options, "sealed.safetensors", &shared, &error));
    ok(wm_model_read_tensor(shared, "w", expected, BYTES, &error));
    void *(*jobs[])(void *) = {read_often, read_until_freed};
    for (int job = 0; job < 2; job++) {
        for (int i = 0; i < 3; i++)
            CHECK(pthread_create(&readers[i], NULL, jobs[job], NULL) == 0);
        if (job == 1) {
            nanosleep(&(struct timespec){0, 20000000}, NULL);
            ok(wm_model_free(shared));
        }
        for (int i = 0; i < 3; i++)
            CHECK(pthread_join(readers[i], NULL) == 0);
    }
    ok(wm_options_free(options));
}

static void forks(void)
{
    static unsigned char buffer[BYTES];
    wm_options *options = with_identity("id");
    wm_model *model = NULL;
    ok(wm_model_open(options, "sealed.safetensors", &model, &error));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        ok(wm_model_read_tensor(model, "w", buffer, BYTES, &error));
        CHECK(memcmp(buffer, expected, BYTES) == 0);
        ok(wm_decrypt(options, "sealed.safetensors", "in-child", NULL, &error)); /* needs threads */
        ok(wm_model_free(model));
        ok(wm_model_open(options, "sealed.safetensors", &model, &error));
        ok(wm_model_free(model));
        ok(wm_options_free(options));
        execlp("true", "true", (char *)NULL); /* the threads of its parent are not here to be freed */
        _exit(1);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    ok(wm_model_read_tensor(model, "w", buffer, BYTES, &error));
    ok(wm_model_free(model));
    ok(wm_options_free(options));
}

int main(void)
{
    CHECK(wm_live_handles() == 0 && strlen(wm_version()) >= 5);
    keys_and_encryption();
    reading();
    bad_handles();
    callbacks();
    progress();
    marking();
    threads();
    forks();
    signing();
    paths_of_any_bytes();
    CHECK(wm_live_handles() == 0);
    puts("all as it must be");
    return 0;
}
