"""Names of Megatron-LM's arguments that do not change what a model computes, given its tensors.

Collected from every revision of ``arguments.py``, ``tasks/main.py`` and ``pretrain_*.py`` of Megatron-LM until core
0.15, whose classic models have the keys that the converter reads, and from ProteinLM. Arguments that do change it are
in :mod:`converter.formats.megatron.arguments`.
"""

from __future__ import annotations

# of the model group, without effect on the function: kernels, and settings of features whose switch is checked
_MODEL = """
    attention_backend bert_binary_head decoder_num_layers embedding_weights_in_fp32 erf_gelu
    moe_frequency mtp_loss_scaling_factor num_query_groups onnx_safe param_sharing_style relative_attention_max_distance
    relative_attention_num_buckets rope_scaling_factor rotary_base rotary_interleaved rotary_percent
    rotary_seq_len_interpolation_factor
"""

# floating-point formats and their kernels
_PRECISION = """
    accumulate_allreduce_grads_in_fp32 apply_query_key_layer_scaling attention_softmax_in_fp32 bf16
    disable_bf16_reduced_precision_matmul first_last_layers_bf16 fp16 fp16_lm_cross_entropy fp32_allreduce
    fp32_embedding fp32_layernorm fp32_residual_connection fp32_tokentypes fp4 fp4_param fp4_recipe fp8
    fp8_amax_compute_algo fp8_amax_history_len fp8_e4m3 fp8_hybrid fp8_interval fp8_margin fp8_param_gather fp8_recipe
    fp8_wgrad grad_reduce_in_bf16 hysteresis inference_rng_tracker initial_loss_scale loss_scale loss_scale_window
    min_loss_scale min_scale num_layers_at_end_in_bf16 num_layers_at_start_in_bf16 reuse_grad_buf_for_mxfp8_param_ag
    te_rng_tracker transformer_impl
"""

# optimization, regularization, recomputation, fused kernels, saving and validation
_TRAINING = """
    activations_checkpoint_method activations_checkpoint_num_layers adam_beta1 adam_beta2 adam_eps add_qkv_bias
    adlr_autoresume adlr_autoresume_interval apply_rope_fusion async_save async_tensor_model_parallel_allreduce
    async_tensor_parallel_allreduce auto_detect_ckpt_format batch_size bias_dropout_fusion bias_swiglu_fusion
    calculate_per_token_loss check_for_large_grads check_for_nan_in_loss_and_grad check_for_spiky_loss
    check_weight_hash_across_dp_replicas_interval checkpoint_activations checkpoint_attention checkpoint_granularity
    checkpoint_method checkpoint_num_layers ckpt_assume_constant_structure ckpt_convert_format ckpt_convert_save
    ckpt_convert_update_legacy_dist_opt_format ckpt_format ckpt_fully_parallel_load ckpt_fully_parallel_save
    ckpt_fully_parallel_save_deprecated ckpt_step clip_grad clone_scatter_output_in_embedding cloze_eval
    cross_entropy_fusion_impl cross_entropy_loss_fusion data_parallel_random_init dataloader_type debug decoupled_lr
    decoupled_min_lr decrease_batch_size_if_needed deep_init deprecated_use_mcore_models deterministic_mode
    disable_tp_comm_bulk_dgrad disable_tp_comm_bulk_wgrad disable_tp_comm_split_ag disable_tp_comm_split_rs
    dist_ckpt_format dist_ckpt_format_deprecated dist_ckpt_optim_fully_reshardable dist_ckpt_save_pre_mcore_014
    dist_ckpt_strictness distrib_optim_fully_reshardable_mem_efficient distribute_checkpointed_activations
    distribute_recomputed_activations distribute_saved_activations embedding_init_method_std enable_gloo_process_groups
    end_wd end_weight_decay error_injection_rate error_injection_type eval_batch_size eval_hf eval_interval eval_iters
    eval_max_preds_per_seq eval_seq_length exit_duration_in_mins exit_interval exit_on_missing_checkpoint
    exit_signal_handler expert_parallel finetune full_validation global_batch_size gradient_accumulation_fusion
    grpo_clamp_eps_lower grpo_clamp_eps_upper grpo_default_temperature grpo_default_top_p grpo_entropy_term_weight
    grpo_filter_groups_with_same_reward grpo_group_size grpo_iterations grpo_kl_beta grpo_prompts_per_step
    high_priority_stream_groups init_method_xavier_uniform intermediate_size iterations_to_skip langrl_env_config
    langrl_external_server langrl_inference_server_conversation_template langrl_inference_server_type load load_all_rng
    load_main_params_from_ckpt load_model_opt_format load_openai load_optim load_rng log_interval lr lr_decay_iters
    lr_decay_samples lr_decay_style lr_warmup_fraction lr_warmup_init lr_warmup_iters lr_warmup_percent
    lr_warmup_samples lr_wsd_decay_iters lr_wsd_decay_samples lr_wsd_decay_style manual_gc manual_gc_eval
    manual_gc_interval masked_softmax_fusion max_training_rank memory_snapshot_path micro_batch_size min_lr
    model_parallel_memory_opt multiple_validation_sets no_async_tensor_model_parallel_allreduce no_load_optim
    no_load_rng no_manual_gc_eval no_persist_layer_norm no_save_optim no_save_rng non_persistent_ckpt_type
    non_persistent_global_ckpt_dir non_persistent_local_ckpt_algo non_persistent_local_ckpt_dir
    non_persistent_save_interval num_microbatches num_microbatches_in_minibatch optimizer optimizer_cpu_offload
    optimizer_offload_fraction overlap_cpu_optimizer_d2h_h2d overlapping_eval override_checkpoint_version
    override_lr_scheduler override_opt_param_scheduler perform_initialization perform_rl_step pin_cpu_grads
    pin_cpu_params pipeline_model_parallel_comm_backend pretrained_bert pretrained_checkpoint profile profile_ranks
    profile_step_end profile_step_start rampup_batch_size recompute_activations recompute_granularity recompute_method
    recompute_modules recompute_num_layers record_memory_history rerun_mode result_rejected_tracker_filename
    resume_dataloader rl_calculate_intra_group_similarity rl_importance_sampling_truncation_coef
    rl_inference_logprobs_is_correction rl_offload_kv_cache_during_training rl_offload_optimizer_during_inference
    rl_partial_rollouts rl_prompts_per_eval rl_remove_kv_cache_during_training rl_reset_cuda_graphs
    rl_sequence_packing_algo rl_sequence_packing_bin_size rl_use_sequence_packing rope_type save save_all_rng
    save_interval save_iters save_optim save_retain_interval save_rng scaled_masked_softmax_fusion
    scaled_upper_triang_masked_softmax_fusion seed sequence_parallel sft sft_tokenizer_prompt_format sgd_momentum
    skip_train start_wd start_weight_decay strict_fsdp_dtensor_load strict_lambada tensorboard_dir test_mode
    tp_comm_bootstrap_backend tp_comm_bulk_dgrad tp_comm_bulk_wgrad tp_comm_overlap tp_comm_overlap_ag
    tp_comm_overlap_cfg tp_comm_overlap_rs tp_comm_overlap_rs_dgrad tp_comm_split_ag tp_comm_split_rs train_iters
    train_samples train_sync_interval use_checkpoint_args use_checkpoint_lr_scheduler use_checkpoint_opt_param_scheduler
    use_dist_ckpt use_dist_ckpt_deprecated use_flash_attn use_fused_weighted_squared_relu use_legacy_models use_mcore
    use_mcore_models use_mp_args_from_checkpoint_args use_persistent_ckpt_worker use_pytorch_profiler
    use_tokenizer_model_from_checkpoint_args use_torch_optimizer_for_cpu_offload validate_model_load warmup
    wd_incr_style weight_decay weight_decay_incr_style
"""

# parallelism
_DISTRIBUTED = """
    DDP_impl account_for_embedding_in_pipeline_split account_for_loss_in_pipeline_split align_grad_reduce
    align_param_gather context_parallel_size cp_comm_type data_parallel_sharding_strategy ddp_average_in_collective
    ddp_bucket_size ddp_num_buckets ddp_pad_buckets_for_high_nccl_busbw deallocate_pipeline_outputs
    decoder_first_pipeline_num_layers decoder_last_pipeline_num_layers defer_embedding_wgrad_compute delay_grad_reduce
    delay_param_gather disable_symmetric_registration disrib_opt_comm_mem_savings distrib_opt_comm_mem_savings
    distributed_backend distributed_timeout_minutes distributed_timeout_seconds_after_init empty_unused_memory_each_iter
    empty_unused_memory_level enable_full_sharding_in_hsdp encoder_pipeline_model_parallel_size
    encoder_tensor_model_parallel_size expert_model_parallel_size fsdp_double_buffer gradient_reduce_div_fusion
    hierarchical_context_parallel_sizes init_model_with_meta_device inter_layer_model_parallel_size
    intra_layer_model_parallel_size keep_fp8_transpose_cache keep_fp8_transpose_cache_when_using_custom_fsdp
    lazy_mpu_init local_rank microbatch_group_size_per_vp_stage nccl_communicator_config_path nccl_ub
    num_distributed_optimizer_instances num_layers_per_virtual_pipeline_stage num_virtual_stages_per_pipeline_rank
    overlap_grad_reduce overlap_p2p_comm overlap_p2p_comm_warmup_flush overlap_param_gather
    overlap_param_gather_with_optimizer_step pipeline_model_parallel_layout pipeline_model_parallel_size
    pipeline_model_parallel_split_rank replication replication_factor replication_jump
    scatter_gather_tensors_in_pipeline sharp_enabled_group standalone_embed_stage standalone_embedding_stage
    suggested_communication_unit_size tensor_model_parallel_size torch_fsdp2_reshard_after_forward
    use_contiguous_buffers_in_ddp use_contiguous_buffers_in_local_ddp use_cpu_initialization use_custom_fsdp
    use_distributed_optimizer use_gpu_initialization use_megatron_fsdp use_pipelining use_ring_exchange_p2p use_sharp
    use_torch_fsdp2 use_tp_pp_dp_mapping virtual_pipeline_model_parallel_size wgrad_deferral_limit
"""

# data and tokenizer
_DATA = """
    allow_trivial_doc async_indexer block_index_path block_top_k cache_dir cased_data_path cased_vocab
    create_attention_mask_in_dataloader data_args_path data_cache_path data_epochs data_impl data_loader data_path
    decoder_seq_length delim encoder_seq_length eod_mask_loss eval_text_key hash_data_path ict_one_sent
    index_reload_interval input_data_sizes_file lazy_loader legacy_tokenizer loose_json mask_prob max_num_samples
    max_preds_per_seq merge_file mid_level_dataset_surplus mmap_bin_files mmap_warmup mock_data model_parallel_size
    ner_data_path num_dataset_builder_threads num_workers object_storage_cache_path padded_vocab_size
    per_split_data_args_path presplit_sentences renormalize_blend_weights reset_attention_mask reset_position_ids
    retriever_seq_length s3_cache_path sample_rate seq_length short_seq_prob shuffle skip_mmap_warmup split test_data
    test_data_path text_key tiktoken_num_special_tokens tiktoken_pattern tiktoken_special_tokens tokenizer_metadata
    tokenizer_model tokenizer_model_type tokenizer_path tokenizer_type train_data train_data_path trust_remote_code
    use_npy_data_loader use_random_spans use_regular_masking use_tfrecords val_data_path valid_data valid_data_path
    vocab vocab_extra_ids vocab_file vocab_size
"""

# logging and operations
_LOGGING = """
    app_tag_run_name app_tag_run_version barrier_with_L1_time calc_ft_timeouts config_logger_dir
    disable_straggler_on_startup enable_ft_package enable_msc enable_one_logger enable_onelogger
    inprocess_active_world_size inprocess_barrier_timeout inprocess_completion_timeout inprocess_empty_cuda_cache
    inprocess_granularity inprocess_hard_timeout inprocess_heartbeat_interval inprocess_heartbeat_timeout
    inprocess_last_call_wait inprocess_max_iterations inprocess_monitor_process_interval
    inprocess_monitor_thread_interval inprocess_progress_watchdog_interval inprocess_restart inprocess_soft_timeout
    inprocess_termination_grace_time log_batch_size_to_tensorboard log_energy log_learning_rate_to_tensorboard
    log_loss_scale_to_tensorboard log_memory_to_tensorboard log_num_zeros_in_grad log_params_norm log_progress
    log_straggler log_throughput log_timers_to_tensorboard log_validation_ppl_to_tensorboard
    log_world_size_to_tensorboard log_zeros logging_level one_logger_async one_logger_entity one_logger_project
    one_logger_run_name run_workload_inspector_server straggler_ctrlr_port straggler_minmax_count
    tensorboard_log_interval tensorboard_queue_size timing_log_level timing_log_option wandb_entity wandb_exp_name
    wandb_project wandb_save_dir
"""

# inference
_INFERENCE = """
    bert_embedder_type cuda_graph_impl cuda_graph_scope cuda_graph_warmup_steps decode_only_cuda_graphs
    disable_chunked_prefill enable_cuda_graph external_cuda_graph flash_decode genfile greedy
    inference_batch_times_seqlen_threshold inference_dynamic_batching inference_dynamic_batching_block_size
    inference_dynamic_batching_buffer_guaranteed_fraction inference_dynamic_batching_buffer_overflow_factor
    inference_dynamic_batching_buffer_size_gb inference_dynamic_batching_chunk_size
    inference_dynamic_batching_max_requests_override inference_dynamic_batching_max_tokens_override
    inference_dynamic_batching_num_cuda_graphs inference_dynamic_batching_track_paused_request_events
    inference_dynamic_batching_unified_memory_level inference_max_batch_size inference_max_seq_length max_tokens_to_oom
    mlp_chunks_for_prefill nccl_all_reduce_for_prefill num_samples out_seq_length output_bert_embeddings recompute
    sample_input_file sample_output_file symmetric_ar_type temperature top_k top_p
"""

# finetuning tasks, ProteinLM's included
_TASKS = """
    epochs eval_micro_batch_size faiss_match faiss_topk_retrievals keep_last qa_data_dev qa_data_test
    skip_seq_longer_than task train_hard_neg train_with_neg val_av_rank_hard_neg val_av_rank_other_neg
"""

# experts, latent attention and state-space layers, whose switches are checked
_OTHER_ARCHITECTURES = """
    cache_mla_latents delay_wgrad_compute disable_mamba_mem_eff_path enable_experimental exp_avg_dtype exp_avg_sq_dtype
    expert_tensor_parallel_size kv_lora_rank main_grads_dtype main_params_dtype mamba_head_dim mamba_num_groups
    mamba_num_heads mamba_state_dim moe_apply_probs_on_input moe_aux_loss_coeff moe_deepep_num_sms moe_enable_deepep
    moe_expert_capacity_factor moe_extended_tp moe_ffn_hidden_size moe_grouped_gemm moe_input_jitter_eps moe_layer_freq
    moe_layer_recompute moe_loss_coeff moe_pad_expert_input_to_capacity moe_pad_experts_for_cuda_graph_inference
    moe_per_layer_logging moe_permute_fusion moe_router_bias_update_rate moe_router_dtype moe_router_enable_expert_bias
    moe_router_force_load_balancing moe_router_fusion moe_router_group_topk moe_router_load_balancing_type
    moe_router_num_groups moe_router_padding_for_fp8 moe_router_pre_softmax moe_router_score_function moe_router_topk
    moe_router_topk_limited_devices moe_router_topk_scaling_factor moe_router_type moe_shared_expert_intermediate_size
    moe_shared_expert_overlap moe_token_dispatcher_type moe_token_drop_policy moe_token_dropping
    moe_upcycling_granularity moe_use_legacy_grouped_gemm moe_use_upcycling moe_z_loss_coeff mscale mscale_all_dim
    overlap_moe_expert_parallel_comm q_lora_rank qk_head_dim qk_pos_emb_head_dim rotary_scaling_factor
    use_precision_aware_optimizer v_head_dim yaml_cfg
"""

# vision and retrieval models
_VISION_AND_RETRIEVAL = """
    bert_load biencoder_projection_dim biencoder_shared_query_context_model block_data_path classes_fraction
    data_per_class_fraction data_sharding dino_bottleneck_size dino_freeze_last_layer dino_head_hidden_size
    dino_local_crops_number dino_local_img_size dino_norm_last_layer dino_teacher_temp dino_warmup_teacher_temp
    dino_warmup_teacher_temp_epochs embedding_path evidence_data_path faiss_use_gpu head_lr_mult ict_head_size ict_load
    img_dim img_h img_w indexer_batch_size indexer_log_interval iter_per_epoch mask_factor mask_type num_channels
    num_classes patch_dim pool_type projection_dim query_in_block_prob report_topk_accuracies
    retriever_report_topk_accuracies retriever_score_scaling retro_attention_gate retro_cyclic_train_iters
    retro_encoder_attention_dropout retro_encoder_hidden_dropout retro_encoder_layers retro_fix_sub_epoch
    retro_num_neighbors retro_num_retrieved_chunks retro_project_dir retro_return_doc_ids retro_split_constraint
    retro_verify_neighbor_count retro_workdir shared_query_context_model swin_backbone_type titles_data_path
    use_one_sent_docs vision_backbone_type vision_pretraining vision_pretraining_type vit_load
"""

# values that Megatron-LM adds to its options
_COMPUTED = """
    allow_transformer_engine blendable_index_path consumed_train_samples consumed_valid_samples curr_iteration
    data_parallel_size dataset_impl do_test do_train do_valid dynamic_loss_scale iteration model_type
    num_floating_point_operations_so_far params_dtype rank retro_bert_tokenizer_type retro_bert_vocab_file
    retro_block_size retro_chunk_length retro_gpt_chunk_length retro_gpt_retrieved_length retro_neighbor_dirs
    retro_split_preprocessing skipped_train_samples transformer_pipeline_model_parallel_size variable_seq_lengths
    world_size
"""

NEUTRAL_NAMES = frozenset(
    " ".join(
        (
            _MODEL,
            _PRECISION,
            _TRAINING,
            _DISTRIBUTED,
            _DATA,
            _LOGGING,
            _INFERENCE,
            _TASKS,
            _OTHER_ARCHITECTURES,
            _VISION_AND_RETRIEVAL,
            _COMPUTED,
        )
    ).split()
)
