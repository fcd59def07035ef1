#include "ctl/complete.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ctl/args.h"
#include "ctl/session.h"
#include "ctl/text.h"
#include "lib/mem.h"

#define ASK_MS     1000
#define JOBS_SHOWN 200

struct completion {
    FILE *out;
    const char *word; /* what was typed of it so far */
    size_t before;    /* bytes in front of it that belong to the candidate: --name= */
    const char *server;
};

static void offer(const struct completion *c, const char *candidate, const char *description)
{
    if (strncasecmp(candidate, c->word, strlen(c->word)) != 0) {
        return;
    }
    struct buf line = {0};
    buf_append(&line, c->word - c->before, c->before);
    text_append_clean(&line, candidate);
    if (description != NULL) {
        buf_append_str(&line, "\t");
        text_append_clean(&line, description);
    }
    fprintf(c->out, "%s\n", buf_cstr(&line));
    buf_fini(&line);
}

static void offer_choices(const struct completion *c, const char *choices)
{
    while (*choices != 0) {
        size_t len = strcspn(choices, "|");
        char choice[64];
        snprintf(choice, sizeof choice, "%.*s", (int)len, choices);
        offer(c, choice, NULL);
        choices += len + (choices[len] == '|');
    }
}

static void offer_options(const struct completion *c, const struct option *options)
{
    for (; options != NULL && options->name != NULL; options++) {
        char name[64];
        snprintf(name, sizeof name, "--%s", options->name);
        offer(c, name, options->help);
    }
}

static void offer_commands(const struct completion *c)
{
    const char *last = "";
    for (const struct command *command = commands; command->noun != NULL; command++) {
        if (strcmp(command->noun, last) != 0) {
            offer(c, command->noun, NULL);
        }
        last = command->noun;
        if (command->alias != NULL) {
            offer(c, command->alias, command->summary);
        }
    }
}

static void offer_verbs(const struct completion *c, const char *noun)
{
    for (const struct command *command = commands; command->noun != NULL; command++) {
        if (strcmp(command->noun, noun) == 0) {
            offer(c, command->verb, command->summary);
        }
    }
}

static void offer_jobs(const struct completion *c, struct session *s)
{
    Ds__JobListRequest request = DS__JOB_LIST_REQUEST__INIT;
    request.has_all = request.all = 1;
    request.has_limit = 1;
    request.limit = JOBS_SHOWN;
    Ds__JobList *list = NULL;
    if (session_call(s, RPC_JOB_LIST, &request, &list, NULL) != 0) {
        return;
    }
    for (size_t i = 0; i < list->n_items; i++) {
        char id[32];
        char *what = mem_printf("%s %s", list->items[i]->name, list->items[i]->state);
        snprintf(id, sizeof id, "%" PRIu64, list->items[i]->id);
        offer(c, id, what);
        free(what);
    }
    rpc_free(&list->base);
}

static void offer_nodes(const struct completion *c, struct session *s)
{
    Ds__NodeListRequest request = DS__NODE_LIST_REQUEST__INIT;
    Ds__NodeList *list = NULL;
    if (session_call(s, RPC_NODE_LIST, &request, &list, NULL) != 0) {
        return;
    }
    for (size_t i = 0; i < list->n_items; i++) {
        offer(c, list->items[i]->name, list->items[i]->state);
    }
    rpc_free(&list->base);
}

static void offer_ckpts(const struct completion *c, struct session *s)
{
    Ds__CkptListRequest request = DS__CKPT_LIST_REQUEST__INIT;
    Ds__CkptList *list = NULL;
    if (session_call(s, RPC_CKPT_LIST, &request, &list, NULL) != 0) {
        return;
    }
    for (size_t i = 0; i < list->n_items; i++) {
        const Ds__Ckpt *ckpt = list->items[i];
        char id[32];
        char *what =
            mem_printf("job %" PRIu64 " step %" PRIu64 " %s", ckpt->job, ckpt->step, ckpt->state);
        snprintf(id, sizeof id, "%" PRIu64, ckpt->id);
        offer(c, id, what);
        free(what);
    }
    rpc_free(&list->base);
}

static void offer_queues(const struct completion *c, struct session *s)
{
    Ds__Empty request = DS__EMPTY__INIT;
    Ds__QueueList *list = NULL;
    if (session_call(s, RPC_QUEUE_LIST, &request, &list, NULL) != 0) {
        return;
    }
    for (size_t i = 0; i < list->n_items; i++) {
        offer(c, list->items[i]->name, NULL);
    }
    rpc_free(&list->base);
}

static void offer_accounts(const struct completion *c, struct session *s)
{
    Ds__Empty request = DS__EMPTY__INIT;
    Ds__AccountList *list = NULL;
    if (session_call(s, RPC_ACCOUNT_LIST, &request, &list, NULL) != 0) {
        return;
    }
    for (size_t i = 0; i < list->n_items; i++) {
        offer(c, list->items[i]->name, NULL);
    }
    rpc_free(&list->base);
}

static void offer_windows(const struct completion *c, struct session *s)
{
    Ds__MaintListRequest request = DS__MAINT_LIST_REQUEST__INIT;
    Ds__ReservationList *list = NULL;
    if (session_call(s, RPC_MAINT_LIST, &request, &list, NULL) != 0) {
        return;
    }
    for (size_t i = 0; i < list->n_items; i++) {
        char id[32];
        snprintf(id, sizeof id, "%" PRIu64, list->items[i]->id);
        offer(c, id, list->items[i]->reason);
    }
    rpc_free(&list->base);
}

static void offer_arguments(const struct completion *c, enum argument argument)
{
    if (argument == ARGUMENT_NONE) {
        return;
    }
    if (argument == ARGUMENT_FILE) {
        fprintf(c->out, ":file\n");
        return;
    }
    static void (*const offers[])(const struct completion *, struct session *) = {
        [ARGUMENT_JOB] = offer_jobs,         [ARGUMENT_NODE] = offer_nodes,
        [ARGUMENT_CKPT] = offer_ckpts,       [ARGUMENT_QUEUE] = offer_queues,
        [ARGUMENT_ACCOUNT] = offer_accounts, [ARGUMENT_MAINT] = offer_windows,
    };
    struct session s;
    session_init(&s, c->server, ASK_MS, NULL);
    offers[argument](c, &s);
    session_fini(&s);
}

static void offer_value(const struct completion *c, const struct option *option)
{
    if (strchr(option->value, '|') != NULL) {
        offer_choices(c, option->value);
    } else if (strcmp(option->name, "job") == 0) {
        offer_arguments(c, ARGUMENT_JOB);
    } else if (strcmp(option->value, "QUEUE") == 0) {
        offer_arguments(c, ARGUMENT_QUEUE);
    } else if (strcmp(option->value, "ACCOUNT") == 0) {
        offer_arguments(c, ARGUMENT_ACCOUNT);
    } else if (strcmp(option->name, "server") == 0 || strcmp(option->value, "DIR") == 0 ||
               strcmp(option->value, "FILE") == 0) {
        fprintf(c->out, ":file\n");
    }
}

/* The option of a word such as --sort or -o; NULL when it is none. */
static const struct option *option_of(const struct command *command, const char *word)
{
    if (word[0] != '-' || word[1] == 0) {
        return NULL;
    }
    return word[1] == '-' ? args_option(command, word + 2, strcspn(word + 2, "="))
                          : args_option_letter(command, word[strlen(word) - 1]);
}

void complete(FILE *out, const char *const *words, size_t count)
{
    struct completion c = {.out = out, .word = count > 0 ? words[count - 1] : ""};
    const char **plain = mem_alloc_array(count + 1, sizeof *plain);
    size_t plain_count = 0;
    const char *pending = NULL; /* the option word whose value comes next */
    for (size_t i = 0; i + 1 < count; i++) {
        const struct option *option = pending == NULL ? option_of(NULL, words[i]) : NULL;
        if (pending != NULL) {
            c.server = strcmp(pending, "--server") == 0 ? words[i] : c.server;
            pending = NULL;
        } else if (option != NULL) {
            bool has_value = words[i][1] == '-' && strchr(words[i], '=') != NULL;
            pending = args_wants_value(option) && !has_value ? words[i] : NULL;
        } else {
            plain[plain_count++] = words[i];
        }
    }
    size_t used = 0;
    const struct command *command = args_command(plain, plain_count, &used);
    if (pending != NULL) {
        const struct option *option = option_of(command, pending);
        if (option != NULL) {
            offer_value(&c, option);
        }
    } else if (strncmp(c.word, "--", 2) == 0 && strchr(c.word, '=') != NULL) {
        const struct option *option = option_of(command, c.word);
        c.before = strcspn(c.word, "=") + 1;
        c.word += c.before;
        if (option != NULL && option->value != NULL) {
            offer_value(&c, option);
        }
    } else if (c.word[0] == '-') {
        offer_options(&c, command != NULL ? command->options : NULL);
        offer_options(&c, global_options);
    } else if (command != NULL) {
        bool more = plain_count - used < command->arguments_max;
        offer_arguments(&c, more ? command->argument : ARGUMENT_NONE);
    } else if (plain_count == 0) {
        offer_commands(&c);
    } else if (plain_count == 1) {
        offer_verbs(&c, plain[0]);
    }
    free(plain);
}
