/*
 * Opens an encrypted model that lies in storage of its own (here: in memory), reads it through a callback as a runtime
 * would, and shows progress; `stop` cancels it.
 *
 *     cc -std=c99 callbacks.c $(pkg-config --cflags --libs weightmark) -o callbacks
 *     ./callbacks FILE IDENTITY [stop]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weightmark.h>

struct blob {
    unsigned char *bytes;
    size_t size;
};

/* Called from several threads at once: it changes nothing. The library never asks for more than there is. */
static int read_blob(void *context, uint64_t offset, void *buffer, size_t len)
{
    const struct blob *blob = context;
    memcpy(buffer, blob->bytes + offset, len);
    return 0;
}

static void release_blob(void *context)
{
    struct blob *blob = context;
    free(blob->bytes);
    free(blob);
}

static struct blob *load_blob(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    struct blob *blob = calloc(1, sizeof *blob);
    unsigned char part[65536];
    size_t got;
    while (blob != NULL && (got = fread(part, 1, sizeof part, file)) > 0) {
        unsigned char *more = realloc(blob->bytes, blob->size + got);
        if (more == NULL) {
            release_blob(blob);
            blob = NULL;
            break;
        }
        memcpy(more + blob->size, part, got);
        blob->bytes = more;
        blob->size += got;
    }
    fclose(file);
    return blob;
}

static void advance(void *context, const char *task, uint64_t done, uint64_t total)
{
    (void)context;
    fprintf(stderr, "\r%s: %" PRIu64 " of %" PRIu64 " bytes", task, done, total);
}

static bool cancelled(void *context)
{
    return *(const bool *)context;
}

/* A runtime that takes a read callback: it knows nothing of weightmark. */
static uint64_t runtime_sum(wm_read_at read_at, void *context, uint64_t size)
{
    unsigned char part[4096];
    uint64_t sum = 0;
    for (uint64_t at = 0; at < size; at += sizeof part) {
        size_t len = size - at < sizeof part ? (size_t)(size - at) : sizeof part;
        if (read_at(context, at, part, len) != 0)
            return 0;
        for (size_t i = 0; i < len; i++)
            sum += part[i];
    }
    return sum;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: callbacks FILE IDENTITY [stop]\n");
        return WM_MISUSE;
    }
    bool stop = argc > 3 && strcmp(argv[3], "stop") == 0;
    struct blob *blob = load_blob(argv[1]);
    if (blob == NULL) {
        fprintf(stderr, "callbacks: cannot read %s\n", argv[1]);
        return WM_INPUT;
    }
    wm_error *error = NULL;
    wm_options *options = NULL;
    wm_sources *sources = NULL;
    wm_model *model = NULL;
    wm_file *file = NULL;

    /* from here on the blob is the library's to release, whatever happens */
    wm_code code = wm_sources_lone("model", blob->size, read_blob, blob, release_blob, &sources, &error);
    if (code == WM_OK)
        code = wm_options_new(&options, &error);
    if (code == WM_OK)
        code = wm_options_identity(options, argv[2], &error);
    if (code == WM_OK)
        code = wm_options_progress(options, advance, cancelled, &stop, &error);
    if (code == WM_OK)
        code = wm_model_open_sources(options, sources, &model, &error);
    wm_sources_free(sources);
    if (code == WM_OK)
        code = wm_file_open(model, wm_model_file_path(model, 0), &file, &error);
    if (code == WM_OK)
        printf("%zu tensors, %" PRIu64 " bytes, which sum to %" PRIu64 "\n", wm_model_tensors(model), wm_file_size(file),
               runtime_sum(wm_file_callback, file, wm_file_size(file)));

    /* the same, written to a file: the work of which is worth watching */
    wm_options *decrypting = NULL;
    char plain[4096];
    snprintf(plain, sizeof plain, "%s.plain", argv[1]);
    if (code == WM_OK)
        code = wm_options_new(&decrypting, &error);
    if (code == WM_OK)
        code = wm_options_identity(decrypting, argv[2], &error);
    if (code == WM_OK)
        code = wm_options_progress(decrypting, advance, cancelled, &stop, &error);
    if (code == WM_OK)
        code = wm_decrypt(decrypting, argv[1], plain, NULL, &error);
    if (code != WM_OK)
        fprintf(stderr, "\ncallbacks: %s\n", wm_error_message(error));
    wm_error_free(error);
    wm_file_free(file);
    wm_model_free(model);
    wm_options_free(decrypting);
    wm_options_free(options);
    return code;
}
