/*
 * Opens an encrypted model, lists its tensors, and decrypts one into memory of its own.
 *
 *     cc -std=c99 load.c $(pkg-config --cflags --libs weightmark) -o load
 *     ./load MODEL IDENTITY [PUBLIC_KEY]
 *
 * With a public key the model must be exactly what was signed with it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <weightmark.h>

static int failed(wm_error *error)
{
    fprintf(stderr, "load: %s (%s)\n", wm_error_message(error), wm_error_cause(error));
    int status = wm_error_code(error);
    wm_error_free(error);
    return status;
}

static wm_code open_model(const char *path, const char *identity, const char *key, wm_model **model, wm_error **error)
{
    wm_options *options = NULL;
    wm_policy *policy = NULL;
    wm_code code = wm_options_new(&options, error);
    if (code == WM_OK)
        code = wm_options_identity(options, identity, error);
    if (code == WM_OK && key != NULL)
        code = wm_policy_require(key, &policy, error);
    if (code == WM_OK)
        code = key != NULL ? wm_options_policy(options, policy, error)
                           : wm_options_danger_accept_unsigned(options, error);
    if (code == WM_OK)
        code = wm_model_open(options, path, model, error);
    wm_policy_free(policy);
    wm_options_free(options);
    return code;
}

static void print(const wm_tensor *tensor)
{
    printf("%-6s [", tensor->dtype);
    for (size_t i = 0; i < tensor->rank; i++)
        printf("%s%" PRIu64, i > 0 ? ", " : "", tensor->shape[i]);
    printf("]  %s  (%s)\n", tensor->name, tensor->file);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: load MODEL IDENTITY [PUBLIC_KEY]\n");
        return WM_MISUSE;
    }
    wm_model *model = NULL;
    wm_error *error = NULL;
    if (open_model(argv[1], argv[2], argc > 3 ? argv[3] : NULL, &model, &error) != WM_OK)
        return failed(error);
    if (wm_model_verified(model) != NULL)
        printf("verified: %s\n", wm_model_verified(model));

    wm_tensor tensor, largest = {0};
    for (size_t i = 0; i < wm_model_tensors(model); i++) {
        if (wm_model_tensor(model, i, &tensor, &error) != WM_OK)
            return failed(error);
        print(&tensor);
        if (tensor.nbytes > largest.nbytes)
            largest = tensor;
    }

    if (largest.nbytes > 0) {
        unsigned char *bytes = malloc(largest.nbytes);
        if (bytes == NULL)
            return WM_INPUT;
        if (wm_model_read_tensor(model, largest.name, bytes, largest.nbytes, &error) != WM_OK)
            return failed(error);
        uint64_t sum = 0;
        for (uint64_t i = 0; i < largest.nbytes; i++)
            sum += bytes[i];
        printf("%s: %" PRIu64 " bytes, which sum to %" PRIu64 "\n", largest.name, largest.nbytes, sum);
        free(bytes);
    }
    wm_model_free(model);
    return WM_OK;
}
