/*
 * weightmark: encrypts, signs and watermarks machine-learning models.
 *
 *     wm_options *options = NULL;
 *     wm_model *model = NULL;
 *     wm_error *error = NULL;
 *     if (wm_options_new(&options, &error) != WM_OK ||
 *         wm_options_identity(options, "serving.key", &error) != WM_OK ||
 *         wm_model_open(options, "model/", &model, &error) != WM_OK) {
 *         fprintf(stderr, "%s\n", wm_error_message(error));
 *     } else {
 *         wm_tensor q;
 *         if (wm_model_find(model, "layers.0.q_proj.weight", &q, &error) == WM_OK) {
 *             void *bytes = malloc(q.nbytes);
 *             wm_model_read_tensor(model, q.name, bytes, q.nbytes, &error);
 *         }
 *     }
 *     wm_error_free(error);
 *     wm_model_free(model);
 *     wm_options_free(options);
 *
 * Calls return a `wm_code`. Those that take a place for an error set it to NULL, or to an error that is the caller's to
 * free; the place may be NULL. There is no last error, and no setting that one call leaves for another.
 *
 * Handles are the caller's to free, each with the function of its kind, which takes NULL as well. A handle of a wrong
 * kind, or one that was freed, is WM_MISUSE. A process can hold 65536 of them at a time. One handle may be used by many
 * threads at once; one that is freed meanwhile lives until their calls are done. After a fork the child may go on to use
 * what its parent had opened.
 *
 * A pointer is NULL or what its type says. Texts end in NUL and are UTF-8; paths end in NUL and are any bytes, though
 * the name of a lone file that is a model must be UTF-8. Texts that come back belong to the handle they were asked of.
 * Memory to read into is of the length given, and nobody else's meanwhile; what is in it after a failure is unspecified,
 * but never unauthenticated plaintext.
 *
 * Functions of the caller's may be called from any thread. They must not throw C++ exceptions or jump out.
 *
 * A verb refuses options that it has no use for: whoever asks for something is not left without it.
 */


#ifndef WEIGHTMARK_H
#define WEIGHTMARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * What a call came to. Numbers never change; later versions may add some.
 */
typedef enum {
    /**
     * Done. Since 0.1.
     */
    WM_OK = 0,
    /**
     * The answer is no: tampered, badly signed, bound to something else. Since 0.1.
     */
    WM_REFUSED = 1,
    /**
     * The caller made a mistake: a null pointer, a freed handle, an option that the verb has no use for. Since 0.1.
     */
    WM_MISUSE = 2,
    /**
     * The operating system, a read callback or the format of a file says no. Since 0.1.
     */
    WM_INPUT = 3,
    /**
     * A key is missing, malformed or does not fit. Since 0.1.
     */
    WM_KEY = 4,
    /**
     * A callback asked to stop; nothing was left behind. Since 0.1.
     */
    WM_CANCELLED = 5,
    /**
     * The library, or a callback in Rust, panicked: please report it with the message. Since 0.1.
     */
    WM_PANIC = 6,
} wm_code;

/**
 * Why a call failed.
 */
typedef struct wm_error wm_error;

/**
 * What was found of a mark.
 */
typedef struct wm_evidence wm_evidence;

/**
 * One file of a model, decrypted and verified where it is read. Any number of threads may use one handle.
 */
typedef struct wm_file wm_file;

/**
 * An open model. Any number of threads may use one handle.
 */
typedef struct wm_model wm_model;

/**
 * What a verb is given. One handle serves one verb, any number of times and from any thread.
 */
typedef struct wm_options wm_options;

/**
 * Whose signature counts, and what is expected of a model.
 */
typedef struct wm_policy wm_policy;

/**
 * What a verb did or found.
 */
typedef struct wm_report wm_report;

/**
 * The files of a model in the caller's own storage.
 */
typedef struct wm_sources wm_sources;

/**
 * Hears how far a piece of work is: `done` of `total` bytes of `task` (`encrypt`, `hash`, `mark`, ..).
 */
typedef void (*wm_advance)(void *context, const char *task, uint64_t done, uint64_t total);

/**
 * Whether to stop.
 */
typedef bool (*wm_cancelled)(void *context);

/**
 * Fills `buffer` with the `len` bytes from `offset` on, and returns 0, or anything else if it cannot.
 */
typedef int (*wm_read_at)(void *context, uint64_t offset, void *buffer, size_t len);

/**
 * Lets go of a context.
 */
typedef void (*wm_release)(void *context);

/**
 * What a tensor is. All pointers live as long as the model's handle.
 */
typedef struct {
    /**
     * Its name.
     */
    const char *name;
    /**
     * The file of the model that holds it.
     */
    const char *file;
    /**
     * Its element type: `F32`, `BF16`, `Q4_K`, ..
     */
    const char *dtype;
    /**
     * Its dimensions, outermost first.
     */
    const uint64_t *shape;
    /**
     * How many dimensions; 0 for a scalar.
     */
    size_t rank;
    /**
     * Number of elements.
     */
    uint64_t elements;
    /**
     * Size of the elements in bytes, row-major, little-endian.
     */
    uint64_t nbytes;
} wm_tensor;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The code that the call returned; `WM_MISUSE` if this is no error.
 */
wm_code wm_error_code(const wm_error *error);

/**
 * One line for people: the file, then what is wrong with it.
 */
const char *wm_error_message(const wm_error *error);

/**
 * The cause as a stable word for programs: `chunk-tampered`, `missing-file`, `no-match`, `misuse`, ..
 */
const char *wm_error_cause(const wm_error *error);

/**
 * The file or the model that this is about, as it was named, or NULL.
 */
const char *wm_error_artifact(const wm_error *error);

/**
 * Frees an error. NULL is fine.
 */
wm_code wm_error_free(wm_error *error);

/**
 * New options, with nothing given.
 */
wm_code wm_options_new(wm_options **options, wm_error **error);

/**
 * Frees options. NULL is fine.
 */
wm_code wm_options_free(wm_options *options);

/**
 * Adds the identity (or symmetric key) in the file at `path` to those that may open. Whoever has one expects what is
 * encrypted: a plain model in its place is refused.
 */
wm_code wm_options_identity(wm_options *options, const char *path, wm_error **error);

/**
 * Gives a passphrase: one more that may open, or, to `wm_encrypt`, the one to encrypt to. It is copied into locked memory.
 */
wm_code wm_options_passphrase(wm_options *options,
                              const char *passphrase,
                              wm_error **error);

/**
 * The context, such as `acme/llama-1b@3`: what is encrypted is bound to it, what is opened must be.
 */
wm_code wm_options_context(wm_options *options, const char *context, wm_error **error);

/**
 * Refuses a model that is not encrypted.
 */
wm_code wm_options_expect_encrypted(wm_options *options, wm_error **error);

/**
 * Opens an encrypted directory even if some of its files stay closed to the identities.
 */
wm_code wm_options_accept_closed(wm_options *options, wm_error **error);

/**
 * Refuses a model that is not exactly what was signed under `policy`, as it is now: what is changed in it later does not count.
 */
wm_code wm_options_policy(wm_options *options,
                          const wm_policy *policy,
                          wm_error **error);

/**
 * Opens a model that is not encrypted even though an identity or a context was given.
 */
wm_code wm_options_danger_accept_plaintext(wm_options *options, wm_error **error);

/**
 * Opens a model without looking at its signature. Without this, a model that has one needs a policy.
 */
wm_code wm_options_danger_accept_unsigned(wm_options *options, wm_error **error);

/**
 * Opens, or signs, a model although this file in it holds code, or what is not provably plain data.
 */
wm_code wm_options_danger_allow_code(wm_options *options, const char *path, wm_error **error);

/**
 * Lets `advance` hear how far the work is, about once a megabyte, and asks `cancelled` whether to stop; either may be NULL.
 *
 * They are called from several threads, but never two of them at once for one verb. They may call any function of this
 * library. `context` is theirs, and must live as long as the options and whatever works with them.
 */
wm_code wm_options_progress(wm_options *options,
                            wm_advance advance,
                            wm_cancelled cancelled,
                            void *context,
                            wm_error **error);

/**
 * Requires a signature by the public key (PEM) at `path`.
 */
wm_code wm_policy_require(const char *path, wm_policy **policy, wm_error **error);

/**
 * Reads a policy (TOML) from the file at `path`.
 */
wm_code wm_policy_load(const char *path, wm_policy **policy, wm_error **error);

/**
 * Requires a signature under one of the certificates (PEM) at `path`, by a certificate issued to `name`, or to anybody
 * if that is NULL.
 */
wm_code wm_policy_certificates(const char *path, const char *name, wm_policy **policy, wm_error **error);

/**
 * Accepts a signature by the public key (PEM) at `path` as well.
 */
wm_code wm_policy_or(wm_policy *policy, const char *path, wm_error **error);

/**
 * Requires that the model was signed under this name.
 */
wm_code wm_policy_expect_name(wm_policy *policy, const char *name, wm_error **error);

/**
 * Requires a release of this version or a later one.
 */
wm_code wm_policy_minimum_version(wm_policy *policy, uint64_t version, wm_error **error);

/**
 * Keeps the highest version of each model in the file at `path`, and refuses a lower one.
 */
wm_code wm_policy_high_water(wm_policy *policy, const char *path, wm_error **error);

/**
 * Takes no signature by the key of this id: 64 hexadecimal digits in lower case.
 */
wm_code wm_policy_revoke(wm_policy *policy, const char *key_id, wm_error **error);

/**
 * Leaves out a path of the model, with all that is beneath it, even though it was not signed.
 */
wm_code wm_policy_danger_ignore_path(wm_policy *policy, const char *path, wm_error **error);

/**
 * Tolerates files that were not signed. Whatever loads them loads what nobody vouched for.
 */
wm_code wm_policy_danger_ignore_unsigned_files(wm_policy *policy, wm_error **error);

/**
 * Frees a policy. NULL is fine.
 */
wm_code wm_policy_free(wm_policy *policy);

/**
 * A directory of no files yet; messages will call it `name`.
 */
wm_code wm_sources_new(const char *name, wm_sources **sources, wm_error **error);

/**
 * Adds the file at `path` (relative, separated by `/`) of `size` bytes.
 *
 * `read_at` is called with `context` from several threads at once, and never for bytes beyond `size`. What it returns for
 * an offset must stay the same. `release` (NULL: nothing to do) is called once nobody needs the context any more: as soon
 * as the sources and all models opened from them are freed, or at once if this fails.
 */
wm_code wm_sources_add(wm_sources *sources,
                       const char *path,
                       uint64_t size,
                       wm_read_at read_at,
                       void *context,
                       wm_release release,
                       wm_error **error);

/**
 * A lone file, as `wm_sources_add` takes it: a model that is no directory. Its format may go by its name.
 */
wm_code wm_sources_lone(const char *path,
                        uint64_t size,
                        wm_read_at read_at,
                        void *context,
                        wm_release release,
                        wm_sources **sources,
                        wm_error **error);

/**
 * Frees sources. Models opened from them stay open. NULL is fine.
 */
wm_code wm_sources_free(wm_sources *sources);

/**
 * Opens the model at `path`: a directory or a file, plain or encrypted. `options` may be NULL.
 *
 * Options: identity, passphrase, context, expect_encrypted, accept_closed, policy, danger_accept_plaintext,
 * danger_accept_unsigned, danger_allow_code, progress.
 */
wm_code wm_model_open(const wm_options *options, const char *path, wm_model **model, wm_error **error);

/**
 * Opens the model that `sources` hold, likewise. Under a policy a lone file must be given as a directory, with its
 * signature in it.
 */
wm_code wm_model_open_sources(const wm_options *options, const wm_sources *sources, wm_model **model, wm_error **error);

/**
 * Number of tensors.
 */
size_t wm_model_tensors(const wm_model *model);

/**
 * Describes the tensor of this number, below `wm_model_tensors`.
 */
wm_code wm_model_tensor(const wm_model *model, size_t index, wm_tensor *tensor, wm_error **error);

/**
 * Describes the tensor of this name.
 */
wm_code wm_model_find(const wm_model *model, const char *name, wm_tensor *tensor, wm_error **error);

/**
 * Reads the tensor called `name` into `buffer`, which must be exactly `nbytes` of it long. An encrypted model decrypts
 * just the chunks that the tensor lies in.
 */
wm_code wm_model_read_tensor(const wm_model *model, const char *name, void *buffer, size_t len, wm_error **error);

/**
 * Reads rows of the tensor called `name`: the part of its first dimension from `start` to `end`, without it.
 */
wm_code wm_model_read_rows(const wm_model *model,
                           const char *name,
                           uint64_t start,
                           uint64_t end,
                           void *buffer,
                           size_t len,
                           wm_error **error);

/**
 * Reads the tensor called `name` as `count` numbers, exactly its `elements`: converted, and rounded to nearest;
 * quantised blocks too.
 */
wm_code wm_model_read_f32(const wm_model *model, const char *name, float *buffer, size_t count, wm_error **error);

/**
 * Number of files, with tensors or without.
 */
size_t wm_model_files(const wm_model *model);

/**
 * Path of the file of this number, below `wm_model_files`, or NULL.
 */
const char *wm_model_file_path(const wm_model *model, size_t index);

/**
 * Size in bytes of the file of this number, or 0.
 */
uint64_t wm_model_file_size(const wm_model *model, size_t index);

/**
 * Fills `buffer` with the bytes of the file at `path` from `offset` on, decrypted and verified. `wm_file_open` does it faster
 * for many reads.
 */
wm_code wm_model_read_file_at(const wm_model *model,
                              const char *path,
                              uint64_t offset,
                              void *buffer,
                              size_t len,
                              wm_error **error);

/**
 * What was verified, as JSON, or NULL if there was no policy. It lives as long as the handle.
 */
const char *wm_model_verified(const wm_model *model);

/**
 * Frees a model. Its files that are open stay so. NULL is fine.
 */
wm_code wm_model_free(wm_model *model);

/**
 * Opens the file at `path` of a model.
 */
wm_code wm_file_open(const wm_model *model, const char *path, wm_file **file, wm_error **error);

/**
 * Size in bytes, or 0 if this is no file.
 */
uint64_t wm_file_size(const wm_file *file);

/**
 * Fills `buffer` with the bytes from `offset` on, or fails.
 */
wm_code wm_file_read_at(const wm_file *file, uint64_t offset, void *buffer, size_t len, wm_error **error);

/**
 * The same as a `wm_read_at`, with a `wm_file` for its context: 0, or the code of the failure.
 */
int wm_file_callback(void *file, uint64_t offset, void *buffer, size_t len);

/**
 * Frees a file. NULL is fine.
 */
wm_code wm_file_free(wm_file *file);

/**
 * Adds a recipient to encrypt to: its text (`wmrecipient1..`), or the path of the file that holds it.
 */
wm_code wm_options_recipient(wm_options *options, const char *recipient, wm_error **error);

/**
 * Encrypts the files at `path` of a directory, and beneath it, under a key of their own, to this recipient and not to others.
 */
wm_code wm_options_group(wm_options *options,
                         const char *path,
                         const char *recipient,
                         wm_error **error);

/**
 * Lists names and shapes of tensors where everybody can read them without a key.
 */
wm_code wm_options_public_index(wm_options *options, wm_error **error);

/**
 * Encrypts the file or directory at `input` to a new file or directory at `output`. `report` may be NULL.
 *
 * Options: recipient or passphrase, group, context, public_index, progress.
 */
wm_code wm_encrypt(const wm_options *options,
                   const char *input,
                   const char *output,
                   wm_report **report,
                   wm_error **error);

/**
 * Decrypts the encrypted file or directory at `input` to a new one at `output`, readable by its owner alone, which appears only
 * when every byte of it was authenticated. `report` may be NULL.
 *
 * Options: identity, passphrase, context, accept_closed, progress.
 */
wm_code wm_decrypt(const wm_options *options,
                   const char *input,
                   const char *output,
                   wm_report **report,
                   wm_error **error);

/**
 * The private key (PEM) at `path` to sign with; `passphrase` opens it if it is encrypted, and is NULL otherwise.
 */
wm_code wm_options_signing_key(wm_options *options, const char *path, const char *passphrase, wm_error **error);

/**
 * Hashes files with `sha256` (as without this), `blake2b` or `blake3`.
 */
wm_code wm_options_hash(wm_options *options, const char *name, wm_error **error);

/**
 * Writes an outboard beside the signature, by which the model can be verified where it is read.
 */
wm_code wm_options_outboard(wm_options *options, wm_error **error);

/**
 * Leaves a path of the model, with all that is beneath it, out of the signature.
 */
wm_code wm_options_ignore(wm_options *options, const char *path, wm_error **error);

/**
 * Where the signature lies, or goes, if not in its usual place.
 */
wm_code wm_options_signature(wm_options *options, const char *path, wm_error **error);

/**
 * Releases the model under this name as this version, which `expires` (seconds since 1970) if that is not 0.
 */
wm_code wm_options_release(wm_options *options, const char *name, uint64_t version, uint64_t expires, wm_error **error);

/**
 * Signs the model at `model`: writes a signature into it, or beside it if it is a file. `report` may be NULL.
 *
 * Options: signing_key, hash, outboard, ignore, signature, release, danger_allow_code, progress.
 */
wm_code wm_sign(const wm_options *options, const char *model, wm_report **report, wm_error **error);

/**
 * Verifies that the model at `model` is exactly what was signed; `WM_REFUSED` if not. `report` may be NULL.
 *
 * Options: policy, signature, identity, passphrase, context, accept_closed, progress.
 */
wm_code wm_verify(const wm_options *options, const char *model, wm_report **report, wm_error **error);

/**
 * The owner key at `path`.
 */
wm_code wm_options_owner_key(wm_options *options, const char *path, wm_error **error);

/**
 * The label of the copy that is marked; to `wm_detect`, one more that may have been.
 */
wm_code wm_options_copy(wm_options *options, const char *label, wm_error **error);

/**
 * Marks with a number of 64 bits instead of a label.
 */
wm_code wm_options_payload(wm_options *options, uint64_t payload, wm_error **error);

/**
 * Overrides the strength of the mark.
 */
wm_code wm_options_strength(wm_options *options, double strength, wm_error **error);

/**
 * The public random value that the mark is bound to.
 */
wm_code wm_options_beacon(wm_options *options, const char *beacon, wm_error **error);

/**
 * A model that the suspect may have been merged with.
 */
wm_code wm_options_partner(wm_options *options, const char *path, wm_error **error);

/**
 * Tries every method, even where a quick one has settled the case.
 */
wm_code wm_options_exhaustive(wm_options *options, wm_error **error);

/**
 * Marks the model at `original` as the new one at `output`. `report` may be NULL.
 *
 * Options: owner_key, copy, payload, strength, beacon, progress.
 */
wm_code wm_embed(const wm_options *options,
                 const char *original,
                 const char *output,
                 wm_report **report,
                 wm_error **error);

/**
 * Looks for the owner's mark on the model `original` in the model at `suspect`. That there is none is evidence, and no failure.
 *
 * Options: owner_key, copy (those who may have leaked it), strength, beacon, partner, exhaustive; of an encrypted suspect identity,
 * passphrase, context, accept_closed; progress.
 */
wm_code wm_detect(const wm_options *options,
                  const char *original,
                  const char *suspect,
                  wm_evidence **evidence,
                  wm_error **error);

/**
 * Compares two models: have they a common origin? Needs no key and no mark; `report` has the answer.
 *
 * Options: identity, passphrase, context, accept_closed, progress.
 */
wm_code wm_lineage(const wm_options *options,
                   const char *first,
                   const char *second,
                   wm_report **report,
                   wm_error **error);

/**
 * The main job: marks the model at `model`, signs it, and encrypts it as the new directory `output`. `report` may be NULL, but
 * what is in it should be kept.
 *
 * Options: owner_key, signing_key, recipient, copy, context, strength, beacon, progress.
 */
wm_code wm_protect(const wm_options *options,
                   const char *model,
                   const char *output,
                   wm_report **report,
                   wm_error **error);

/**
 * The owner's name, which an owner key holds.
 */
wm_code wm_options_name(wm_options *options, const char *name, wm_error **error);

/**
 * The algorithm of a new key: `x-wing` (as without this) or `x25519` of an identity, `p256` (as without this), `p384`, `p521` or
 * `ed25519` of a signing key.
 */
wm_code wm_options_algorithm(wm_options *options,
                             const char *name,
                             wm_error **error);

/**
 * Makes a key: an `identity`, a `signing`, `owner` or `symmetric` key. The secret goes to a new file at `path`, readable
 * by its owner alone, the public half, if it has one, to `path` with `.pub` behind it. `report` may be NULL.
 *
 * Options: name (of an owner, who needs one), algorithm.
 */
wm_code wm_keygen(const wm_options *options,
                  const char *kind,
                  const char *path,
                  wm_report **report,
                  wm_error **error);

/**
 * Number of handles that were not freed yet, for tests.
 */
size_t wm_live_handles(void);

/**
 * The version of the library: `0.1.0`. It lives for ever.
 */
const char *wm_version(void);

/**
 * Tells what the file or directory at `path` is: tensors, recipients, signatures. No key is needed, and nothing is verified.
 */
wm_code wm_inspect(const char *path,
                   wm_report **report,
                   wm_error **error);

/**
 * The report as JSON: what the command line prints with `--json`. It lives as long as the handle.
 */
const char *wm_report_json(const wm_report *report);

/**
 * Frees a report. NULL is fine.
 */
wm_code wm_report_free(wm_report *report);

/**
 * Whether the owner's mark was found.
 */
bool wm_evidence_detected(const wm_evidence *evidence);

/**
 * The base-10 logarithm of the p-value of the owner's mark: a proved bound.
 */
double wm_evidence_log10_p(const wm_evidence *evidence);

/**
 * The score of the owner's mark, in standard deviations.
 */
double wm_evidence_z(const wm_evidence *evidence);

/**
 * The label of the copy that stands out, of those asked for, or NULL. It lives as long as the handle.
 */
const char *wm_evidence_copy(const wm_evidence *evidence);

/**
 * All of it as JSON: what the command line prints with `--json`. It lives as long as the handle.
 */
const char *wm_evidence_json(const wm_evidence *evidence);

/**
 * Frees evidence. NULL is fine.
 */
wm_code wm_evidence_free(wm_evidence *evidence);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WEIGHTMARK_H */
