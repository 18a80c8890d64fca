"""Breaks the code on purpose, one line at a time: a test must notice each.

    python tests/mutate.py                  all of them
    python tests/mutate.py clip shuffle     those whose names contain a word
    python tests/mutate.py --list           their names

Each mutation is made in a copy of the code; nothing here is touched. First the tests run on an
unchanged copy, where they must pass. The exit code is 1 if they do not, if a mutation survives,
or if its text is not found exactly once: then the code has moved on and this list must follow.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple


ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.mutations_data import DATA  # noqa: E402


AT_ONCE = 2
TIMEOUT = 300  # seconds; a mutation that makes a test hang is noticed, too


class Mutation(NamedTuple):
    """`old` becomes `new` in mmnet/`file`; one of `tests` (below tests/test_) must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


BY_HAND = "loop.py::test_the_loop_equals_one_written_out_by_hand"
STOPPED = "resume.py::test_stopped_at_a_step_and_resumed_it_ends_the_same"
AVERAGED = f"{STOPPED}[adamw, ema]"
SCALED = f"{STOPPED}[fp16, accumulated]"
GENERATORS = "resume.py::test_every_random_generator_is_restored"
ABSENT = "fusion.py::test_a_modality_that_nobody_has_is_as_good_as_no_key"
PADDING = "encoder_text.py::test_padding_changes_no_feature"
NOT_FINITE = "loop.py::test_a_step_that_is_not_finite_is_as_if_it_had_not_been[fp32]"
BEST = "loop.py::test_the_best_is_the_first_of_the_lowest_losses_or_the_highest_scores"
OFTEN = "loop.py::test_evaluating_more_often_changes_no_weight"

CONTROLLED = "controller.py::test_stopped_amid_decisions_and_resumed_it_ends_the_same"

MUTATIONS = [
    # The step
    Mutation("no optimizer step", "loop.py", "job.scaler.step(optimizer)", "pass", (BY_HAND,)),
    Mutation(
        "gradients kept",
        "loop.py",
        "    optimizer.zero_grad()\n",
        "",
        (BY_HAND,),
    ),
    Mutation(
        "no schedule",
        "loop.py",
        'job.run.optimizer["lr"] * job.schedule(job.counters.step + 1, job.total)',
        'job.run.optimizer["lr"]',
        (BY_HAND,),
    ),
    Mutation(
        "rate computed, not set",
        "loop.py",
        'group["lr"] = rate * group.get("lr_scale", 1.0)',
        "pass",
        (BY_HAND,),
    ),
    Mutation(
        "warm-up off by one",
        "schedule/__init__.py",
        "return step / steps, 0.0",
        "return (step - 1) / steps, 0.0",
        ("schedule.py",),
    ),
    Mutation(
        "no clip",
        "loop.py",
        "torch.nn.utils.clip_grads_with_norm_(parameters.all, clip, norm)",
        "pass",
        (BY_HAND,),
    ),
    Mutation(
        "fp16 clipped before unscaling",
        "loop.py",
        "    job.scaler.unscale_(optimizer)\n",
        "",
        ("loop.py::test_mixed_precision_follows_fp32[fp16]",),
    ),
    Mutation(
        "no accumulation weight",
        "gradients.py",
        "share = batch.size / data.samples",
        "share = 1.0",
        ("loop.py::test_splitting_the_batch_changes_no_gradient",),
    ),
    Mutation(
        "uneven micro-batches weigh the same",
        "gradients.py",
        "share = batch.size / data.samples",
        "share = 1 / len(data.batches)",
        ("loop.py::test_micro_batches_that_lost_samples_weigh_what_they_hold",),
    ),
    Mutation("no average", "loop.py", "job.average.update(step)", "pass", (BY_HAND,)),
    Mutation(
        "no guard against NaN",
        "loop.py",
        "if math.isfinite(mean_loss) and math.isfinite(grad_norm):",
        "if True:",
        (NOT_FINITE,),
    ),
    Mutation(
        "no guard against infinite gradients",
        "loop.py",
        "if math.isfinite(mean_loss) and math.isfinite(grad_norm):",
        "if math.isfinite(mean_loss):",
        ("loop.py::test_an_infinite_gradient_alone_is_caught_too",),
    ),
    Mutation(
        "bad steps without end",
        "loop.py",
        "spent = len(counters.recently_skipped) > run.trainer.max_nonfinite",
        "spent = False",
        ("loop.py::test_too_many_bad_steps_end_the_run_with_the_good_weights_saved",),
    ),
    Mutation(
        "biases decay",
        "optimizer/__init__.py",
        '{**group, "weight_decay": 0.0}',
        '{**group, "weight_decay": weight_decay}',
        (BY_HAND,),
    ),
    # Evaluation
    Mutation(
        "mean over batches",
        "evaluation.py",
        "self.total += loss.item() * self._holding()",
        "self.total += loss.item() * self.loss_batch",
        ("loop.py::test_the_evaluation_is_the_mean_over_samples",),
    ),
    Mutation("dropout in evaluation", "evaluation.py", "network.eval()", "pass", (OFTEN,)),
    Mutation(
        "training without dropout",
        "evaluation.py",
        "network.train(training)",
        "pass",
        (OFTEN,),
    ),
    Mutation(
        "best is last",
        "loop.py",
        "if math.isfinite(value) and (best is None or sign * value > sign * best):",
        "if math.isfinite(value):",
        (BEST,),
    ),
    Mutation(
        "best is worst",
        "loop.py",
        "sign = 1 if head.higher",
        "sign = 1 if not head.higher",
        (BEST,),
    ),
    Mutation(
        "no early stopping",
        "loop.py",
        "if out_of_patience(job):",
        "if False:",
        ("loop.py::test_early_stopping_counts_evaluations_without_a_new_best",),
    ),
    Mutation(
        "early stopping forgotten",
        "loop.py",
        "if out_of_patience(job):",
        "if evaluation and out_of_patience(job):",
        ("resume.py::test_resuming_a_finished_run_changes_nothing",),
    ),
    Mutation(
        "trained weights handed over for averaged ones",
        "ending.py",
        "weights = job.average.averaged() or job.model.state_dict()",
        "weights = job.model.state_dict()",
        ("cli.py::test_the_final_weights_give_the_metrics_of_the_summary",),
    ),
    # Masks
    Mutation(
        "bytes: attention to padding",
        "encoder/text/bytes.py",
        "attend = mask[:, None, None, :]",
        "attend = torch.ones_like(mask)[:, None, None, :]",
        (PADDING,),
    ),
    Mutation(
        "padding pooled",
        "encoder/pooling.py",
        "weight = mask.unsqueeze(-1).to(tokens.dtype)",
        "weight = torch.ones_like(mask).unsqueeze(-1).to(tokens.dtype)",
        (PADDING,),
    ),
    Mutation(
        "padding attended to by the query",
        "encoder/pooling.py",
        "attended: Tensor = self.attend(tokens, attn_mask=visible)",
        "attended: Tensor = self.attend(tokens)",
        (PADDING,),
    ),
    # Fusions
    Mutation(
        "a missing modality in late fusions",
        "fusion/late.py",
        "vectors[name] = vectors[name].masked_fill(~there[:, None], 0)",
        "pass",
        (ABSENT,),
    ),
    Mutation(
        "padding in fusions of tokens",
        "fusion/blocks.py",
        "return (visible | ~visible.any(1, keepdim=True))[:, None, None]",
        "return None",
        ("fusion.py::test_padding_changes_nothing",),
    ),
    Mutation(
        "a missing modality in cross-attention",
        "fusion/blocks.py",
        "taken = taken.masked_fill(~visible.any(1)[:, None, None], 0)",
        "pass",
        (ABSENT,),
    ),
    Mutation(
        "no modality embedding",
        "fusion/early.py",
        " + self.modality[name]",
        "",
        ("fusion.py::test_every_parameter_gets_a_finite_gradient_from_the_joint_vector",),
    ),
    Mutation(
        "a missing modality in the bottlenecks",
        "fusion/bottleneck.py",
        "shared = masked_mean(torch.stack(written, 1), present)",
        "shared = torch.stack(written, 1).mean(1)",
        (ABSENT,),
    ),
    Mutation(
        "a missing modality in gated fusion",
        "fusion/gated.py",
        "gates = shares(F.pad(scores, (0, 0, 0, 1)), present)",
        "gates = F.pad(scores, (0, 0, 0, 1)).softmax(1)",
        ("fusion.py::test_gated_is_the_formula_of_the_paper",),
    ),
    Mutation(
        "a missing modality keeps its share",
        "fusion/late.py",
        "return scores.masked_fill(absent, torch.finfo(scores.dtype).min).softmax(1)",
        "return scores.softmax(1)",
        ("fusion.py::test_gated_is_the_formula_of_the_paper",),
    ),
    Mutation(
        "padding in early fusion",
        "fusion/early.py",
        "attend = keys(beside([(token, None), *masks]))",
        "attend = None",
        ("fusion.py::test_padding_changes_nothing",),
    ),
    Mutation(
        "padding in the bottlenecks",
        "fusion/bottleneck.py",
        "name: keys(beside([(shared, None), (x, features[name].visible())]))",
        "name: None",
        ("fusion.py::test_padding_changes_nothing",),
    ),
    Mutation(
        "padding in cross-attention",
        "fusion/cross_attention.py",
        "attend = {name: keys(seen) for name, seen in visible.items()}",
        "attend = dict.fromkeys(visible)",
        ("fusion.py::test_padding_changes_nothing",),
    ),
    Mutation(
        "padding in the perceiver",
        "fusion/perceiver.py",
        "visible = beside([(x, features[name].visible()) for name, x in parts.items()])",
        "visible = None",
        ("fusion.py::test_padding_changes_nothing",),
    ),
    Mutation(
        "presence is not part of what is visible",
        "interfaces.py",
        "present.expand(self.tokens.shape[:2]) if self.mask is None else self.mask & present",
        "self.mask",
        ("fusion.py::test_what_stands_in_missing_rows_is_never_seen",),
    ),
    Mutation(
        "activations kept",
        "fusion/tokenwise.py",
        "if self.recompute and self.training:",
        "if False:",
        ("fusion.py::test_recomputing_gives_the_same_gradients_and_keeps_fewer_activations",),
    ),
    # Encoders and their tuning
    Mutation(
        "padding in a BERT",
        "encoder/text/huggingface.py",
        "attention_mask=mask.long()",
        "attention_mask=None",
        ("encoder_text.py::test_padding_changes_no_feature",),
    ),
    Mutation(
        "pad tokens found by their id",
        "encoder/__init__.py",
        "return Inputs(values, torch.arange(values.shape[1]) < lengths[:, None])",
        "return Inputs(values, values != fill)",
        ("encoder_text.py::test_a_caption_that_spells_the_pad_token_is_not_padding",),
    ),
    Mutation(
        "idle pooling counted as trained",
        "tuning.py",
        "idle = [p for p in parameters_of(encoder.pooling()) if p.requires_grad]",
        "idle = []",
        ("combinations.py",),
    ),
    Mutation(
        "a causal tower looks ahead",
        "encoder/text/bytes.py",
        "attend = attend & earlier",
        "attend = attend & earlier.logical_or(True)",
        ("encoder_text.py::test_a_causal_tower_does_not_look_ahead",),
    ),
    Mutation(
        "padding patches seen",
        "encoder/image/naflex.py",
        "values = inputs.values * mask.unsqueeze(-1)",
        "values = inputs.values",
        ("encoder_image.py::test_padding_a_picture_changes_no_feature",),
    ),
    Mutation(
        "no layer-wise rate",
        "loop.py",
        'rate * group.get("lr_scale", 1.0)',
        "rate",
        ("tuning.py::test_each_layer_moves_by_its_share_of_the_rate",),
    ),
    Mutation(
        "foreign weights accepted",
        "encoder/weights.py",
        "if not inputs & set(matched):",
        "if False:",
        ("weights.py::test_blocks_without_their_embeddings_are_refused",),
    ),
    # Missing modalities
    Mutation(
        "presence not handed on",
        "model.py",
        "name: encoder(inputs[name])._replace(present=inputs[name].present)",
        "name: encoder(inputs[name])",
        ("head.py::test_a_missing_modality_and_the_order_of_the_batch_do_not_matter",),
    ),
    Mutation(
        "the swapped image is one's own",
        "data/conditions.py",
        "other = (index + max(1, size * number // (len(self.modalities) + 1))) % size",
        "other = index",
        ("modalities.py::test_a_swapped_image_is_another_samples_and_the_rest_is_ones_own",),
    ),
    Mutation(
        "Shapley: one order",
        "contribution.py",
        '(worth[one] - worth["nothing"] + worth["both"] - worth[other]) / 2',
        '(worth[one] - worth["nothing"])',
        ("modalities.py::test_shapley_values_are_the_mean_of_both_orders_and_sum_to_the_gain",),
    ),
    # Heads
    Mutation(
        "no clamp on the logit scale",
        "head/contrastive.py",
        "return self.log_scale.clamp(max=limit).exp()",
        "return self.log_scale.exp()",
        ("head.py::test_the_scale_is_held_at_its_limit_and_can_come_back",),
    ),
    Mutation(
        "GradCache: dropout drawn anew",
        "gradcache.py",
        "        set_random_state(state, device)\n",
        "",
        ("head.py::test_dropout_draws_the_same_in_both_passes_over_a_micro_batch",),
    ),
    Mutation(
        "multitask: weights ignored",
        "head/multitask.py",
        '"weights", torch.tensor([weights[name] for name in tasks]), persistent=False',
        '"weights", torch.ones(len(tasks)), persistent=False',
        ("multitask.py::test_the_loss_is_the_weighted_sum_of_the_tasks_own",),
    ),
    Mutation(
        "contrastive: its own group as a negative",
        "head/contrastive.py",
        "return (group[:, None] != group) & both[:, None] & both",
        "return both[:, None] & both",
        ("head.py::test_texts_of_the_same_group_are_no_negatives",),
    ),
    Mutation(
        "contrastive: wrong pairs as positives",
        "head/contrastive.py",
        'return answers["both"] if match is None else answers["both"] & (match == 1)',
        'return answers["both"]',
        ("head.py::test_pairs_that_another_task_mismatched_take_no_part",),
    ),
    Mutation(
        "matching: negatives of one's own group",
        "head/matching.py",
        "possible = (groups[:, None] != groups) & asking[:, None] & known",
        "possible = asking[:, None] & known",
        ("head.py::test_the_nearest_of_another_group_is_found",),
    ),
    Mutation(
        "masked_lm without the joint vector",
        "head/masked_lm.py",
        "x = x + self.joint(fused.joint)[:, None]",
        "pass",
        ("head.py::test_masked_lm_sees_the_joint_vector",),
    ),
    Mutation(
        "retrieval: ties are won",
        "head/retrieval.py",
        "ranks.append(1 + (~(score < best) & ~same).sum(1))",
        "ranks.append(1 + ((score > best) & ~same).sum(1))",
        ("head.py::test_a_network_that_has_collapsed_finds_nothing",),
    ),
    Mutation(
        "GradNorm turns a task round",
        "head/balance.py",
        ".clamp_min(LEAST_WEIGHT)",
        "",
        ("multitask.py::test_gradnorm_never_turns_a_task_round",),
    ),
    Mutation(
        "a task's own parameters taken for shared ones",
        "head/balance.py",
        "return rows.any(1).sum() > 1",
        "return rows.any(1).sum() > 0",
        ("multitask.py::test_pcgrad_leaves_a_tasks_own_parameters_alone",),
    ),
    # Data
    Mutation(
        "no shuffle",
        "data/order.py",
        'return np.argsort(bits, kind="stable")',
        "return np.arange(size)",
        ("data.py::test_every_epoch_holds_every_sample_once_in_an_order_of_its_own",),
    ),
    Mutation(
        "the same order every epoch",
        "data/order.py",
        "np.random.SeedSequence([seed, epoch])",
        "np.random.SeedSequence([seed])",
        ("data.py::test_every_epoch_holds_every_sample_once_in_an_order_of_its_own",),
    ),
    Mutation(
        "the same order for every seed",
        "data/order.py",
        "np.random.SeedSequence([seed, epoch])",
        "np.random.SeedSequence([epoch])",
        ("data.py::test_the_seed_decides_the_order",),
    ),
    Mutation(
        "the same augmentation every epoch",
        "data/order.py",
        "self._due = self._run | epoch << 64 | index",
        "self._due = self._run | index",
        ("data.py::test_a_sample_is_augmented_anew_in_each_epoch",),
    ),
    Mutation(
        "labels shifted",
        "data/loader.py",
        "torch.tensor(values, dtype=TARGETS[name])",
        "torch.tensor(values, dtype=TARGETS[name]) + 1",
        ("data.py::test_labels_go_with_their_samples",),
    ),
    Mutation(
        "shapes: the other shape's colour",
        "dataset/shapes.py",
        'sample["label"] = colours[asked]',
        'sample["label"] = colours[1 - asked]',
        ("shapes.py::test_the_answer_is_the_colour_of_the_shape_that_the_text_names",),
    ),
    Mutation(
        "COCO: smallest instance",
        "data/coco_files.py",
        "if (instance.area, -instance.id) > (best.area, -best.id):",
        "if (instance.area, -instance.id) < (best.area, -best.id):",
        ("coco.py::test_the_largest_instance_decides_ties_go_to_the_lowest_id",),
    ),
    Mutation(
        "NLVR: always the first order of the boxes",
        "dataset/nlvr.py",
        "which = hashed(place) % PERMUTATIONS if rng is None else rng.randrange(PERMUTATIONS)",
        "which = 0",
        ("nlvr.py::test_training_draws_the_order_of_the_boxes",),
    ),
    Mutation(
        "hidden tokens are always masked",
        "data/masking.py",
        "if fate < 0.8:",
        "if fate < 1.0:",
        (
            "masking.py::test_of_the_chosen_tokens_eight_tenths_are_hidden_and_one_tenth_each_changed_or_left",
        ),
    ),
    Mutation(
        "absent rows not marked",
        "data/batch.py",
        "if any(name not in row for row in rows):",
        "if False:",
        ("masking.py::test_a_text_that_is_missing_is_not_asked_for",),
    ),
    Mutation(
        "bad samples replaced",
        "data/loader.py",
        "bad.append((problem.key, problem.reason))",
        "rows.append(self._row(index + 1, rng)); indices.append(index)",
        ("data.py::test_a_bad_sample_leaves_a_gap_and_is_named",),
    ),
    Mutation(
        "bad samples not named",
        "data/loader.py",
        "bad.append((problem.key, problem.reason))",
        "pass",
        ("data.py::test_a_bad_sample_leaves_a_gap_and_is_named",),
    ),
    Mutation(
        "bad training samples not counted",
        "loop.py",
        'job.bad.add("train", data.bad)',
        "pass",
        ("resume.py::test_what_the_parts_remember_is_remembered",),
    ),
    Mutation(
        "bad validation samples not counted",
        "loop.py",
        'job.bad.add("val", evaluation.bad)',
        "pass",
        ("resume.py::test_what_the_parts_remember_is_remembered",),
    ),
    Mutation(
        "any number of bad samples",
        "data/bad.py",
        "if count > self.max_bad_fraction * self.sizes[split]:",
        "if False:",
        ("data.py::test_more_than_the_fraction_stops_the_run",),
    ),
    Mutation(
        "workers draw from the run's numbers",
        "data/workers.py",
        "generator=torch.Generator(),",
        "generator=None,",
        ("data.py::test_the_run_s_own_random_numbers_are_not_touched[1]",),
    ),
    # Order of samples, ranks, streams
    Mutation(
        "loading: a rank's share is one short",
        "data/order.py",
        "size * (self.rank + 1) // self.world]",
        "size * (self.rank + 1) // self.world - 1]",
        ("order.py::test_shares_of_a_batch_follow_one_another_and_are_nearly_even[61-4]",),
    ),
    Mutation(
        "loading: every rank evaluates all",
        "data/loader.py",
        "if len(own := share.of(run))",
        "if len(own := run)",
        ("order.py::test_ranks_evaluate_each_sample_once[None-2]",),
    ),
    Mutation(
        "loading: batches of every window in one order",
        "data/order.py",
        'derived(self._seed, "buckets"), window.start,',
        'derived(self._seed, "buckets"), 0,',
        (
            "order.py::test_batches_of_a_window_come_in_no_order_of_length_and_another_in_each_window",
        ),
    ),
    Mutation(
        "loading: buckets by another text than is shown",
        "data/order.py",
        "self._random.at(*one))",
        "self._random.at(one.epoch + 1, one.number))",
        ("order.py::test_buckets_hold_texts_of_about_one_length_as_they_will_be_shown",),
    ),
    Mutation(
        "loading: weights of a mixture ignored",
        "data/order.py",
        "self._counts = shares(there)",
        "self._counts = shares([1] * len(there))",
        ("order.py::test_parts_have_exactly_their_share_of_every_block_and_epochs_of_their_own",),
    ),
    Mutation(
        "loading: a pack one place short",
        "data/packed.py",
        'before + room + joint, side="right"',
        'before + room + joint, side="left"',
        ("lengths.py::test_a_pack_is_as_full_as_it_can_be",),
    ),
    Mutation(
        "loading: the last shard of a stream dropped",
        "data/sequential.py",
        "for shard in shards:",
        "for shard in shards[:-1] or shards:",
        ("dataset_stream.py::test_an_epoch_is_each_sample_once_in_an_order_of_its_own",),
    ),
    Mutation(
        "loading: a stream in one order for ever",
        "dataset/stream.py",
        'f"stream {seed} {epoch}"',
        'f"stream {seed}"',
        ("dataset_stream.py::test_an_epoch_is_each_sample_once_in_an_order_of_its_own",),
    ),
    Mutation(
        "loading: a stream resumed at the start of its epoch",
        "dataset/stream.py",
        "islice(self._epoch(seed, epoch), place, None)",
        "islice(self._epoch(seed, epoch), 0, None)",
        ("dataset_stream.py::test_a_resumed_run_reads_its_epoch_again_and_says_so[2]",),
    ),
    Mutation(
        "loading: other ranks' samples of a stream kept",
        "data/stream.py",
        "position = positions.stop",
        "position = positions.start",
        ("dataset_stream.py::test_any_number_of_workers_and_ranks_reads_one_sequence[1]",),
    ),
    Mutation(
        "loading: a bad label of a stream swallowed",
        "dataset/stream.py",
        'raise BadSample(raw.key, "label is no number") from None',
        "return 0",
        ("dataset_stream.py::test_a_bad_sample_is_counted_and_costs_no_other",),
    ),
    Mutation(
        "loading: damaged headers of a stream not looked for",
        "data/sequential.py",
        "    watched.check_end()",
        "    pass",
        (
            "dataset_stream.py::test_a_damaged_header_of_a_val_shard_is_found_though_nobody_said_how_many_there_are",
        ),
    ),
    Mutation(
        "loading: too few samples of a stream not told",
        "dataset/stream.py",
        "        if number < self._size:",
        "        if False:",
        ("dataset_stream.py::test_fewer_samples_than_said_are_an_error_and_more_a_warning",),
    ),
    Mutation(
        "loading: commands run unasked",
        "data/sequential.py",
        'if scheme[1] == "pipe" and not allow_pipes:',
        "if False:",
        ("dataset_stream.py::test_a_pipe_is_run_only_where_that_is_allowed",),
    ),
    # Checkpoints
    Mutation(
        "Python's generator not restored",
        "job.py",
        "random.setstate((version, tuple(words), gauss))",
        "pass",
        (f"{GENERATORS}[python]",),
    ),
    Mutation(
        "NumPy's generator not restored",
        "job.py",
        "np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))",
        "pass",
        (f"{GENERATORS}[numpy]",),
    ),
    Mutation(
        "torch's generator not restored",
        "job.py",
        'torch.set_rng_state(state["torch"])',
        "pass",
        (AVERAGED,),
    ),
    Mutation(
        "no generator restored",
        "job.py",
        '        set_rng_state(state["rng"], self.machine.device)\n',
        "",
        (AVERAGED,),
    ),
    *(
        Mutation(f"{name} not restored", "job.py", f"        {line}\n", "", (test,))
        for name, line, test in (
            ("weights", "self.model.load_state_dict(checkpoint.weights)", AVERAGED),
            ("average", "self.average.load(checkpoint.averaged)", AVERAGED),
            ("optimizer", 'self.optimizer.load_state_dict(state["optimizer"])', AVERAGED),
            ("scaler", 'self.scaler.load_state_dict(state["scaler"])', SCALED),
            ("counters", 'self.counters = Counters(**state["counters"])', AVERAGED),
            (
                "controller",
                'self.controller.load_state_dict(state["controller"])',
                "resume.py::test_what_the_parts_remember_is_remembered",
            ),
            (
                "bad samples",
                'self.bad.load_state_dict(state["bad"])',
                "resume.py::test_what_the_parts_remember_is_remembered",
            ),
        )
    ),
    Mutation(
        "a step of data repeated after a resume",
        "loop.py",
        "steps_of(job, counters.step + 1, ",
        "steps_of(job, max(counters.step, 1), ",
        (AVERAGED,),
    ),
    Mutation(
        "digests not looked at",
        "checkpoint.py",
        ' or digest(file) != entry["sha256"]',
        "",
        ("checkpoint.py::test_every_flipped_bit_is_noticed",),
    ),
    Mutation(
        "copied, not renamed",
        "checkpoint.py",
        "            temporary.rename(final)\n",
        "            shutil.copytree(temporary, final)\n            shutil.rmtree(temporary)\n",
        ("faults.py::test_killed_at_each_call_to_the_file_system[saves-1]",),
    ),
    Mutation(
        "a moment without a checkpoint",
        "checkpoint.py",
        'replace(temporary.rename(folder / f"{final.name}.new"), final)',
        "replace(temporary, final)",
        ("faults.py::test_killed_at_each_call_to_the_file_system[saves-1]",),
    ),
    Mutation(
        "written from the living weights",
        "checkpoint.py",
        "return buffer.copy_(value.detach(), non_blocking=True)",
        "return value.detach()",
        ("checkpoint.py::test_the_copy_is_taken_at_once_and_the_next_one_does_not_spoil_it",),
    ),
    Mutation(
        "metrics behind the checkpoint",
        "checkpoint.py",
        "            self.before()\n",
        "",
        ("checkpoint.py::test_what_must_be_on_the_disk_before_is",),
    ),
    Mutation(
        "the best one pruned",
        "checkpoint.py",
        "if path != best:",
        "if True:",
        ("checkpoint.py::test_the_newest_are_kept_and_the_best",),
    ),
    Mutation(
        "pickles loaded",
        "checkpoint.py",
        "weights_only=True)",
        "weights_only=False)",
        ("checkpoint.py::test_nothing_in_a_checkpoint_is_executed",),
    ),
    Mutation(
        "other data accepted",
        "session.py",
        'if digests.get(name) != split["digest"]:',
        "if False:",
        ("resume.py::test_other_data_is_another_run",),
    ),
    Mutation(
        "signals ignored",
        "loop.py",
        "leaving = done or spent or stop.requested",
        "leaving = done or spent",
        (AVERAGED,),
    ),
    Mutation(
        "two trainers in a folder",
        "folder.py",
        "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        ("folder.py",),
    ),
    # Metrics and secrets
    Mutation(
        "last lines lost",
        "track/recorder.py",
        "        try:\n            self.sync()\n",
        "        try:\n            pass\n",
        ("track.py::test_line_is_flat_json_in_full_precision",),
    ),
    Mutation(
        "replayed steps recorded twice",
        "track/recorder.py",
        "if step <= self._last.get(name, -1):",
        "if False:",
        ("track.py::test_replayed_steps_are_not_recorded_again",),
    ),
    Mutation(
        "secrets not redacted",
        "redact.py",
        "value = value.replace(secret, REDACTED)",
        "pass",
        ("check.py::test_a_secret_of_the_environment_reaches_no_setting_but_the_trackers",),
    ),
    Mutation(
        "secrets in settings",
        "compose.py",
        ", *leaks(values), ",
        ", ",
        ("check.py::test_a_secret_of_the_environment_reaches_no_setting_but_the_trackers",),
    ),
    # Configs
    Mutation(
        "any _target_",
        "trust.py",
        "if not dotted or not any(fnmatch(target, pattern) for pattern in allowed):",
        "if False:",
        ("check.py::test_a_class_of_another_package_is_refused_however_well_it_would_fit",),
    ),
    Mutation(
        "any _target_ where parts are made",
        "compose.py",
        "with execution_whitelist(TRUSTED):",
        "with execution_whitelist(['*']):",
        ("check.py::test_settings_stay_data_even_when_they_name_a_part",),
    ),
    Mutation(
        "no bounds",
        "values.py",
        "if not (above and value < mark.high):",
        "if False:",
        ("check.py::test_a_mistake_is_told_with_what_would_have_worked",),
    ),
    Mutation(
        "unknown keys accepted",
        "check.py",
        "            if name not in known:\n",
        "            if False:\n",
        ("check.py::test_a_mistake_is_told_with_what_would_have_worked",),
    ),
    # The double loop
    Mutation(
        "action zeroed",
        "controller/double_loop.py",
        "return (self.actions + self.online.bias).exp()",
        "return torch.ones_like(self.actions)",
        (CONTROLLED,),
    ),
    Mutation(
        "features shuffled",
        "controller/features.py",
        "torch.stack([columns[name] for name in FEATURES], 2)",
        "torch.stack([columns[name] for name in reversed(FEATURES)], 2)",
        ("controller.py::test_features_are_what_they_say",),
    ),
    Mutation(
        "groups permuted",
        "controller/steering.py",
        "dict(zip(self.names, rates[0].tolist(), strict=True))",
        "dict(zip(self.names, rates[0].tolist()[::-1], strict=True))",
        ("controller.py::test_each_group_gets_its_own_rate",),
    ),
    Mutation(
        "memory of the policy dropped",
        "controller/policy.py",
        'out, state = out + h @ w["out"], (h, c)',
        'out = out + h @ w["out"]',
        ("settings.py::test_setting_it_otherwise_is_felt[controller.double_loop.ablation]",),
    ),
    Mutation(
        "decided on a stale gradient",
        "controller/double_loop.py",
        "each = self.observer.each()",
        'each = vars(self).setdefault("stale", self.observer.each())',
        ("controller.py::test_a_decision_is_about_the_gradient_of_its_step",),
    ),
    Mutation(
        "loss guard ignored",
        "controller/loss_guard.py",
        "if self.bad < PATIENCE:",
        "if True:",
        ("controller.py::test_a_policy_that_blows_a_run_up_is_stopped",),
    ),
    Mutation(
        "bound on a step ignored",
        "controller/double_loop.py",
        "rates = torch.minimum(self.rate * multipliers[..., 0], self.limit)",
        "rates = self.rate * multipliers[..., 0]",
        ("settings.py::test_setting_it_otherwise_is_felt[controller.double_loop.rho_max]",),
    ),
    Mutation(
        "meta-batch of the validation set",
        "assembly.py",
        "kept, train_split = carve(train_split,",
        "kept, _ = carve(val_split,",
        ("controller.py::test_the_meta_batch_is_kept_from_training",),
    ),
    Mutation(
        "online correction away from the slope",
        "controller/online.py",
        "self.bias + self.rate * cosines",
        "self.bias - self.rate * cosines",
        ("controller.py::test_the_online_loop_corrects_downhill",),
    ),
    Mutation(
        "each rank decides by itself",
        "loop.py",
        "torch.distributed.broadcast(numbers, 0)",
        "pass",
        ("controller.py::test_two_ranks_decide_alike_and_keep_equal_weights",),
    ),
    Mutation(
        "frozen blocks learn",
        "controller/freezing.py",
        "parameter.requires_grad_(learns)",
        "pass",
        ("controller.py::test_blocks_that_do_not_pay_stop_learning_and_nothing_else",),
    ),
    Mutation(
        "regularisation left as it is",
        "controller/regularisation.py",
        'group["weight_decay"] = decay * strength[group["control"]]',
        "pass",
        ("controller.py::test_what_the_policy_says_of_regularisation_is_done",),
    ),
    Mutation(
        "balance forgotten",
        "loop.py",
        "    job.balance.modulate()\n",
        "",
        ("balance.py::test_it_changes_the_run_and_resumes_to_the_bit[ogm_ge]",),
    ),
]
MUTATIONS += [Mutation(*told[:4], (told[4],)) for told in DATA]


class Outcome(NamedTuple):
    """Of one mutation."""

    mutation: Mutation
    noticed: bool
    said: str
    seconds: float


def copy(to: Path) -> Path:
    """What the tests need, in a folder of its own."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("mmnet", "conf", "tests"):
        shutil.copytree(ROOT / name, to / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def pytest(place: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Run tests in a copy, stopping at the first failure. Returns (exit code, output)."""
    data = os.environ.get("MMNET_TEST_DATA", str(ROOT / "../shared/data"))
    environment = os.environ | {
        "PYTHONPATH": str(place),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "MMNET_TEST_DATA": str(Path(data).resolve()),
    }
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    names = [f"tests/test_{test}" for test in tests]
    process = subprocess.Popen(
        [*words, "--basetemp", str(place / "tmp"), *names],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return 1, f"no end after {TIMEOUT} s"
    return process.returncode, out


def attempt(mutation: Mutation, folder: Path) -> Outcome:
    began = time.monotonic()

    def outcome(noticed: bool, said: str) -> Outcome:
        return Outcome(mutation, noticed, said, time.monotonic() - began)

    place = copy(folder / mutation.name.replace(" ", "_"))
    file = place / "mmnet" / mutation.file
    text = file.read_text(encoding="utf-8")
    if (count := text.count(mutation.old)) != 1:
        return outcome(False, f"its text is {count} times in mmnet/{mutation.file}, wanted once")
    changed = text.replace(mutation.old, mutation.new)
    try:
        compile(changed, str(file), "exec")
    except SyntaxError as error:
        return outcome(False, f"it is no Python any more: {error}")
    file.write_text(changed, encoding="utf-8")
    code, out = pytest(place, mutation.tests)
    shutil.rmtree(place, ignore_errors=True)
    if code == 0:
        return outcome(False, f"SURVIVED {', '.join(mutation.tests)}")
    failed = [line for line in out.splitlines() if line.startswith("FAILED")]
    if code != 1 or not failed:
        last = (out.strip().splitlines() or [""])[-1]
        return outcome(code == 1, f"the tests ended with exit code {code}: {last}")
    return outcome(True, failed[0].split(" - ")[0].removeprefix("FAILED tests/test_"))


def unchanged(mutations: list[Mutation], folder: Path) -> str:
    """What is wrong with the tests as such; nothing, if all is well."""
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    whole = [test for test in tests if "::" not in test]
    single = [test for test in tests if "::" in test and test.partition("::")[0] not in whole]
    place = copy(folder / "unchanged")
    where = subprocess.run(
        [sys.executable, "-c", "import mmnet; print(mmnet.__file__)"],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    ).stdout
    if not where.startswith(str(place)):
        return f"not the copy is tested, but {where}"
    code, out = pytest(place, [*whole, *single])
    return "" if code == 0 else out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="parts of names")
    parser.add_argument("--list", action="store_true", help="names only")
    given = parser.parse_args()
    chosen = [
        mutation
        for mutation in MUTATIONS
        if not given.words or any(word in mutation.name for word in given.words)
    ]
    if given.list or not chosen:
        print(*(mutation.name for mutation in chosen), sep="\n")
        return 0 if chosen else 1
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as name,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        folder = Path(name).resolve()
        whole = pool.submit(unchanged, chosen, folder)
        outcomes = []
        for outcome in pool.map(lambda mutation: attempt(mutation, folder), chosen):
            mark = "noticed" if outcome.noticed else "NOT NOTICED"
            name = outcome.mutation.name
            print(f"{outcome.seconds:5.0f} s  {mark}  {name}: {outcome.said}", flush=True)
            outcomes.append(outcome)
        problem = whole.result()
    missed = [outcome.mutation.name for outcome in outcomes if not outcome.noticed]
    print(f"{len(outcomes) - len(missed)} of {len(outcomes)} noticed", end=", ")
    print(f"{time.monotonic() - began:.0f} s")
    if missed:
        print(f"not noticed: {', '.join(missed)}")
    if problem:
        print(f"The tests fail on the unchanged code, so this says nothing:\n{problem}")
    return 1 if missed or problem else 0


if __name__ == "__main__":
    sys.exit(main())
